// Logistic function: y = 1 / (1 + exp(-x)), written so that exp never overflows; dx = dy y (1 - y).
#include "block.cuh"

__device__ element sigmoid_forward(element x) {
    const float e = expf(-fabsf(x));
    return x >= 0.0f ? 1.0f / (1.0f + e) : e / (1.0f + e);
}
KERNEL(sigmoid_forward, f32, bf16)

__device__ element sigmoid_backward(element y, element dy) { return dy * y * (1.0f - y); }
KERNEL(sigmoid_backward, f32, bf16)
