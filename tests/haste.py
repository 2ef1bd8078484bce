"""XLA's flags for programs that are compiled once and run little: no LLVM optimisation, plain loops
instead of fused kernels, one module a program. Run as a script it prints them."""

import jax

HASTE = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if jax.__version_info__ < (
    0,
    11,
):  # later ones do not know the switch, and XLA ends on what it does not know
    HASTE.append("--xla_cpu_use_fusion_emitters=false")

if __name__ == "__main__":
    print(" ".join(HASTE))
