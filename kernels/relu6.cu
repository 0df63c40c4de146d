// y = min(max(x, 0), 6); dx = dy where 0 < y < 6.
#include "block.cuh"

__device__ element relu6_forward(element x) { return x <= 0.0f ? 0.0f : x >= 6.0f ? 6.0f : x; }
KERNEL(relu6_forward, f32, bf16)

__device__ element relu6_backward(element y, element dy) { return y > 0.0f && y < 6.0f ? dy : 0.0f; }
KERNEL(relu6_backward, f32, bf16)
