"""What the project adds to every vLLM process (entry point `vllm.general_plugins`)."""


def register() -> None:
    """Serve LoRA with dense matrix products on the CPU backend."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        type(current_platform).get_punica_wrapper = classmethod(lambda cls: "actors.dense_lora.DenseLoRA")
