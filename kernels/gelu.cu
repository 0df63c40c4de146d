// y = x P(x) and dx = dy (P(x) + x P'(x)), where P is the distribution function of the normal distribution, by the error
// function or by the hyperbolic tangent.
#include "block.cuh"

__device__ element gelu_erf_forward(element x) { return 0.5f * x * (1.0f + erff(x * 0.707106781f)); }
KERNEL(gelu_erf_forward, f32, bf16)

__device__ element gelu_erf_backward(element x, element dy) {
    return dy * (0.5f * (1.0f + erff(x * 0.707106781f)) + x * 0.398942280f * expf(-0.5f * x * x));
}
KERNEL(gelu_erf_backward, f32, bf16)

__device__ element gelu_tanh_forward(element x) {
    return 0.5f * x * (1.0f + tanhf(0.797884561f * x * (1.0f + 0.044715f * x * x)));
}
KERNEL(gelu_tanh_forward, f32, bf16)

__device__ element gelu_tanh_backward(element x, element dy) {
    const float t = tanhf(0.797884561f * x * (1.0f + 0.044715f * x * x));
    return dy * 0.5f * (1.0f + t + x * (1.0f - t * t) * 0.797884561f * (1.0f + 0.134145f * x * x));
}
KERNEL(gelu_tanh_backward, f32, bf16)
