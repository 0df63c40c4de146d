// A learned position before those of every sample: y = (w, x).
#include "columns.cuh"

template <typename T>
__device__ void class_token_forward(
    const T* x,      // (N, image)
    const float* w,  // (c)
    T* y,            // (N, c + image)
    long long n, long long image, int c) {
    const long long first = vector_start<T>();
    for (long long i = first; i < min(n, first + Vector<T>::SIZE); ++i) {
        const long long sample = i / (image + c), rest = i - sample * (image + c);
        y[i] = rest < c ? from_float<T>(w[rest]) : x[sample * image + rest - c];
    }
}
KERNEL(class_token_forward, f32, bf16)

template <typename T>
__device__ void class_token_backward(
    const T* dy,  // (N, c + image)
    T* dx,        // (N, image)
    long long n, long long image, int c) {
    const long long first = vector_start<T>();
    for (long long i = first; i < min(n, first + Vector<T>::SIZE); ++i) {
        const long long sample = i / image;
        dx[i] = dy[sample * (image + c) + c + i - sample * image];
    }
}
KERNEL(class_token_backward, f32, bf16)

// The gradients of 32 values of w (grid x) over a part of the samples (grid y).
template <typename T>
__device__ void class_token_sums(
    const T* dy,  // (N, c + image)
    float* sums,  // (parts, c)
    long long samples, long long image, int c, int samples_per_part) {
    const long long begin = (long long)blockIdx.y * samples_per_part, end = min(samples, begin + samples_per_part);
    const float sum = column_sum_of(blockIdx.x, begin, end, c, [&](long long sample, long long column) {
        return to_float(dy[sample * (image + c) + column]);
    });
    const long long column = blockIdx.x * 32ll + threadIdx.x;
    if (threadIdx.x < 32 && column < c) sums[blockIdx.y * (long long)c + column] = sum;
}
KERNEL(class_token_sums, f32, bf16)
