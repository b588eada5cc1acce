"""How requests come in: gRPC and the OpenAI API, in front of the same engine and pool.

generator_servicer, adapter_servicer   gRPC; `translation` turns messages into values
openai_door                            vLLM's own HTTP endpoints
tokens                                 who may call those
openai_client                          the engine as those endpoints see it
"""
