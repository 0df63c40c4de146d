// y = x min(max(x + 3, 0), 6) / 6; dx = dy (2 x + 3) / 6 where -3 < x < 3, dy above.
#include "block.cuh"

__device__ element hard_swish_forward(element x) { return x <= -3.0f ? 0.0f : x >= 3.0f ? x : x * (x + 3.0f) * (1.0f / 6.0f); }
KERNEL(hard_swish_forward, f32, bf16)

__device__ element hard_swish_backward(element x, element dy) { return x <= -3.0f ? 0.0f : x >= 3.0f ? dy : dy * (x * (1.0f / 3.0f) + 0.5f); }
KERNEL(hard_swish_backward, f32, bf16)
