// Rectified linear unit: y = max(x, 0), NaN where x is; dx = dy where y > 0, otherwise 0.
#include "block.cuh"

__device__ element relu_forward(element x) { return x <= 0.0f ? 0.0f : x; }
KERNEL(relu_forward, f32, bf16)

__device__ element relu_backward(element y, element dy) { return y > 0.0f ? dy : 0.0f; }
KERNEL(relu_backward, f32, bf16)
