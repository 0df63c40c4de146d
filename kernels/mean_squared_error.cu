// Mean squared error. In the forward pass, a block sums the differences of one sample. Targets are f32 whatever the
// outputs are.
#include "block.cuh"

// The target of output d of a sample: its value; or, of several outputs, whether it is the sample's class.
__device__ __forceinline__ float target_of(const float* target, int width, int outputs, int d) {
    if (width == outputs) return target[d];
    return d == (int)target[0] ? 1.0f : 0.0f;
}

template <typename T>
__device__ void mean_squared_error_forward(
    const T* x,            // (N, outputs)
    const float* targets,  // (N, width): width 1 or outputs
    float* rows,           // (N, 2): mean of the squared and of the absolute differences
    int outputs, int width, float share) {
    x += (long long)blockIdx.x * outputs;
    targets += (long long)blockIdx.x * width;
    float squares = 0.0f, sizes = 0.0f;
    for (int d = threadIdx.x; d < outputs; d += blockDim.x) {
        const float difference = to_float(x[d]) - target_of(targets, width, outputs, d);
        squares += difference * difference;
        sizes += fabsf(difference);
    }
    squares = block_sum(squares);
    sizes = block_sum(sizes);
    if (threadIdx.x > 0) return;
    rows[2ll * blockIdx.x] = squares * share;
    rows[2ll * blockIdx.x + 1] = sizes * share;
}
KERNEL(mean_squared_error_forward, f32, bf16)

// One thread per output.
template <typename T>
__device__ void mean_squared_error_backward(
    const T* x,            // (N, outputs)
    const float* targets,  // (N, width): width 1 or outputs
    T* dx,                 // (N, outputs)
    long long n, int outputs, int width, float scale) {
    const long long i = thread_index();
    if (i >= n) return;
    const long long sample = i / outputs;
    const float target = target_of(targets + sample * width, width, outputs, (int)(i - sample * outputs));
    dx[i] = from_float<T>((to_float(x[i]) - target) * scale);
}
KERNEL(mean_squared_error_backward, f32, bf16)
