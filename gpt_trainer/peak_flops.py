"""What GPUs promise: dense bfloat16 FLOPs a second with float32 accumulation, for model FLOPs utilisation.

A device that is not listed by its exact name has no known peak, and no utilisation is reported: the same chip is sold
with other clocks (H100 PCIe, laptop parts) and in slices (MIG), and a wrong peak is worse than none.

Sources are NVIDIA's data sheets; where one gives the figure with sparsity, half of it is taken:
- A100 (nvidia-a100-datasheet, 2021): 312, all form factors
- H100 (nvidia-h100-datasheet, 2023): SXM 1,979/2, PCIe 1,513/2, NVL 1,671/2 (a card)
- H200 (hpc-datasheet-sc23-h200, 2024): SXM 1,979/2, NVL 1,671/2
- GH200 (grace-hopper-superchip data sheet, 2024): 1,979/2
- L4, L40, L40S (l4, l40 and l40s data sheets, 2023): 242/2, 362.1/2, 733/2
- RTX A6000 (proviz-print-nvidia-rtx-a6000-datasheet, 2022): 309.7/2
- GeForce RTX 3090 (Ampere GA102 whitepaper, 2020), RTX 4090 (Ada whitepaper, 2022), RTX 5090 (Blackwell whitepaper,
  2025): 71, 165.2, 209.5
"""

from __future__ import annotations

from collections.abc import Mapping

PEAK_FLOPS: Mapping[str, float] = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989.5e12,
    "NVIDIA H100 PCIe": 756.5e12,
    "NVIDIA H100 NVL": 835.5e12,
    "NVIDIA H200": 989.5e12,
    "NVIDIA H200 NVL": 835.5e12,
    "NVIDIA GH200 480GB": 989.5e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40": 181.05e12,
    "NVIDIA L40S": 366.5e12,
    "NVIDIA RTX A6000": 154.85e12,
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
    "NVIDIA GeForce RTX 5090": 209.5e12,
}
"""By the device's name as its driver gives it."""
