"""Generates with vLLM and hot-loads LoRA adapters."""
