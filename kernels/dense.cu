// Fully connected layer: y = x w^T + b; dx = dy w; dw = dy^T x. The sum of dy over the samples is in sum.cu.
// Blocks are tiles of the result (tile.cuh): rows along grid x, columns along y.
#include "tile.cuh"

template <class Kind, int SIDE, typename T = Storage<Kind>>
__device__ void dense_forward(
    const T* x,         // (N, I)
    const T* w,         // (O, I)
    const T* bias,      // (O), or null
    T* y,               // (N, O)
    int n, int i, int o, int relu) {
    tile_product<Kind, SIDE>(blockIdx.x, n, o, 0, i, MatrixView<T, true>(x, i, n, i), MatrixView<T, true>(w, i, o, i), {bias, relu},
                       Rows<T>(y, o));
}
KERNEL(dense_forward, f32(256, 2, 3), bf16(128, 2, 4), tf32(128, 2, 4))

template <class Kind, int SIDE, typename T = Storage<Kind>>
__device__ void dense_backward_input(
    const T* dy,  // (N, O)
    const T* w,   // (O, I)
    T* dx,        // (N, I)
    int n, int i, int o) {
    tile_product<Kind, SIDE>(blockIdx.x, n, i, 0, o, MatrixView<T, true>(dy, o, n, o), MatrixView<T, false>(w, i, o, i), {},
                       Rows<T>(dx, i));
}
KERNEL(dense_backward_input, f32(256, 2, 3), bf16(128, 2, 4), tf32(128, 2, 4))

// Part z of the samples contributes part z of dw; sum.cu adds the parts.
template <class Kind, int SIDE, typename T = Storage<Kind>>
__device__ void dense_backward_weight(
    const T* x,   // (N, I)
    const T* dy,  // (N, O)
    float* dw,    // (parts, O, I)
    int n, int i, int o, int rows_per_part) {
    const int begin = blockIdx.z * rows_per_part, end = min(n, begin + rows_per_part);
    tile_product<Kind, SIDE>(blockIdx.x, o, i, begin, end, MatrixView<T, false>(dy, o, n, o), MatrixView<T, false>(x, i, n, i), {},
                       Rows<float>(dw + (long long)blockIdx.z * o * i, i));
}
KERNEL(dense_backward_weight, f32(256, 2, 3), bf16(128, 2, 4), tf32(128, 2, 4))
