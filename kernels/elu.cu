// y = x where x > 0, otherwise alpha (exp(x) - 1); dx = dy where y > 0, otherwise dy (y + alpha).
#include "block.cuh"

__device__ element elu_forward(element x, float alpha) { return x > 0.0f ? x : alpha * expm1f(x); }
KERNEL(elu_forward, f32, bf16)

__device__ element elu_backward(element y, element dy, float alpha) { return y > 0.0f ? dy : dy * (y + alpha); }
KERNEL(elu_backward, f32, bf16)
