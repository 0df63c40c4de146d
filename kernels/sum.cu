// Sums over rows in a fixed order: gradients of biases, and the parts of anything that was summed in parts.
// Grid: 32 columns per block along x, parts of the rows along y. A second launch adds the parts.
#include "columns.cuh"

template <typename T>
__device__ void sum_rows(
    const T* x,   // (rows, columns)
    float* sums,  // (parts, columns)
    int rows, long long columns, int rows_per_part) {
    const long long begin = (long long)blockIdx.y * rows_per_part, end = min((long long)rows, begin + rows_per_part);
    const float sum = column_sum(x, blockIdx.x, begin, end, columns);
    const long long column = blockIdx.x * 32ll + threadIdx.x;
    if (threadIdx.x < 32 && column < columns) sums[blockIdx.y * columns + column] = sum;
}
KERNEL(sum_rows, f32, bf16)

// The sum of a few parts with many columns each; one thread per 4 columns.
__device__ void sum_parts(
    const float* parts,  // (count, columns)
    float* sums,         // (columns)
    int count, long long columns) {
    const long long i = vector_start<float>();
    if (i >= columns) return;
    Vector<float> sum = load_vector(parts, i, columns);
#pragma unroll 4
    for (int part = 1; part < count; ++part) {
        const Vector<float> next = load_vector(parts + part * columns, i, columns);
#pragma unroll
        for (int j = 0; j < 4; ++j) sum.at[j] += next.at[j];
    }
    store_vector(sums, i, columns, sum);
}
KERNEL(sum_parts)
