// y = x s, dx = dy s (1 + x (1 - s)), where s is the logistic function of x.
#include "block.cuh"

__device__ __forceinline__ float logistic(float x) {
    const float e = expf(-fabsf(x));
    return x >= 0.0f ? 1.0f / (1.0f + e) : e / (1.0f + e);
}

__device__ element silu_forward(element x) { return x * logistic(x); }
KERNEL(silu_forward, f32, bf16)

__device__ element silu_backward(element x, element dy) {
    const float s = logistic(x);
    return dy * s * (1.0f + x * (1.0f - s));
}
KERNEL(silu_backward, f32, bf16)
