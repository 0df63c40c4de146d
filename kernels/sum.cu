// Sums over rows in a fixed order: gradients of biases, and the parts of anything that was summed in parts.
// Grid: 32 columns per block along x, parts of the rows along y. A second launch with one part adds the parts.
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
