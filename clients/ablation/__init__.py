"""The ablation: the paper's groups and two controls, repeated with paired seeds, interleaved in time, resumable."""
