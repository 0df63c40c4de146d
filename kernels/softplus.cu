// y = ln(1 + exp(beta x)) / beta, written so that exp never overflows; dx = dy / (1 + exp(-beta x)).
#include "block.cuh"

__device__ element softplus_forward(element x, float beta) {
    const float z = beta * x;
    return (fmaxf(z, 0.0f) + log1pf(expf(-fabsf(z)))) / beta;
}
KERNEL(softplus_forward, f32, bf16)

__device__ element softplus_backward(element x, element dy, float beta) {
    const float e = expf(-fabsf(beta * x));
    return dy * (x >= 0.0f ? 1.0f : e) / (1.0f + e);
}
KERNEL(softplus_backward, f32, bf16)
