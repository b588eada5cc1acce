"""One loader for each format of data sets; each returns a `Dataset`.

bioasq              BioASQ Task B, golden files
natural_questions   Natural Questions, original and simplified
nq_open             NQ-open: questions and short answers, without documents
qasper              Qasper: questions about papers
teleqna             TeleQnA: telecommunications, asked without its options
own                 records of JSON Lines, CSV or Hugging Face, with fields of any name
"""
