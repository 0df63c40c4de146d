// Copies and adds rows of strided regions, for collectives. Strides are in elements; one thread per
// element, and in strided_add per 16 bytes.
#include "block.cuh"

struct Place {
    long long row, column;
};
__device__ __forceinline__ Place place(long long width) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    return {i / width, i % width};
}

// sum = a + b, in this order, so that every device gets the same bits.
template <typename T>
__device__ void strided_add(
    const T* a,  // (height, width), rows a_stride apart
    const T* b,  // (height, width), rows b_stride apart
    const T* y,  // (1, width): the sum is 0 where y is not positive; or null
    T* sum,      // (height, width), rows sum_stride apart; may be a or b
    long long a_stride, long long b_stride, long long sum_stride, long long width, long long height) {
    const long long n = width * height, first = vector_start<T>();
    if (y) {
        map_elements(sum, n, [](float left, float right, float y) { return masked(y, left + right, 1); }, a, b, y);
        return;
    }
    if (height == 1 || (a_stride == width && b_stride == width && sum_stride == width)) {
        map_elements(sum, n, [](float left, float right) { return left + right; }, a, b);
        return;
    }
    for (long long i = first; i < min(n, first + Vector<T>::SIZE); ++i) {
        const long long row = i / width, column = i % width;
        const float left = to_float(a[row * a_stride + column]), right = to_float(b[row * b_stride + column]);
        sum[row * sum_stride + column] = from_float<T>(left + right);
    }
}
KERNEL(strided_add, f32, bf16)

__device__ void strided_copy(
    const float* from,  // (height, width), rows from_stride apart
    float* to,  // (height, width), rows to_stride apart
    long long from_stride, long long to_stride, long long width, long long height) {
    const Place at = place(width);
    if (at.row < height) to[at.row * to_stride + at.column] = from[at.row * from_stride + at.column];
}
KERNEL(strided_copy)

__device__ void strided_fill(
    float* to,  // (height, width), rows stride apart
    float value, long long stride, long long width, long long height) {
    const Place at = place(width);
    if (at.row < height) to[at.row * stride + at.column] = value;
}
KERNEL(strided_fill)
