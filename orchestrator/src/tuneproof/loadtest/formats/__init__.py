"""What other load testers read and write.

mooncake           traces of requests: Mooncake JSON Lines, of aiperf and guidellm
benchmark_report   results: llm-d's Benchmark Report
"""
