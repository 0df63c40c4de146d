// y = min(max(x + 3, 0), 6) / 6; dx = dy / 6 where 0 < y < 1.
#include "block.cuh"

__device__ element hard_sigmoid_forward(element x) { return x <= -3.0f ? 0.0f : x >= 3.0f ? 1.0f : (x + 3.0f) * (1.0f / 6.0f); }
KERNEL(hard_sigmoid_forward, f32, bf16)

__device__ element hard_sigmoid_backward(element y, element dy) { return y > 0.0f && y < 1.0f ? dy * (1.0f / 6.0f) : 0.0f; }
KERNEL(hard_sigmoid_backward, f32, bf16)
