// Sums over rows in a fixed order: gradients of biases, and the parts of anything that was summed in parts.
// Grid: 32 columns a block along x, parts of the rows along y. A second launch with one part adds the parts.
#include "block.cuh"

template <typename T>
__device__ void sum_columns(const T* x, float* sums, int rows, long long columns, int rows_per_part) {
    using Parts = float[8][33];
    SHARED(Parts, parts);
    const int lane = threadIdx.x % 32, group = threadIdx.x / 32;
    const long long column = blockIdx.x * 32ll + lane;
    const int begin = blockIdx.y * rows_per_part, end = min(rows, begin + rows_per_part);
    float sum = 0.0f;
    if (column < columns)
        for (int row = begin + group; row < end; row += 8) sum += to_float(x[row * columns + column]);
    parts[group][lane] = sum;
    __syncthreads();
    if (group == 0 && column < columns) {
        for (int i = 1; i < 8; ++i) sum += parts[i][lane];
        sums[blockIdx.y * columns + column] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(256) sum_rows(
    const float* x,  // (rows, columns)
    float* sums,     // (parts, columns)
    int rows, long long columns, int rows_per_part) {
    sum_columns(x, sums, rows, columns, rows_per_part);
}

extern "C" __global__ void __launch_bounds__(256) sum_rows_bf16(
    const __nv_bfloat16* x,  // (rows, columns)
    float* sums,             // (parts, columns)
    int rows, long long columns, int rows_per_part) {
    sum_columns(x, sums, rows, columns, rows_per_part);
}
