"""The inference engine: one base model, and the adapters in its slots.

protocol          what the rest of the generator asks of an engine
vllm_engine       vLLM's AsyncLLM in this process, started with `arguments` and `environment`
scheduled_client  puts `slots` before it: adapters take turns when there are more than slots
worker            runs in vLLM's worker processes: `worker_watch`, `cpu_lora`,
                  `cpu_segments`, `cpu_experts`
scratch           their temporary folder
residency         where the adapters' weights are, by the workers' report
"""
