// Fully connected layer: y = x w^T + b; dx = dy w; dw = dy^T x. The sum of dy over the samples is in sum.cu.
// Blocks are tiles of the result (tile.cuh): rows along grid x, columns along y.
#include "tile.cuh"

template <class Kind, typename T = Storage<Kind>>
__device__ void dense_y(const T* x, const T* w, const float* bias, T* y, int n, int i, int o, int relu) {
    tile_product<Kind>(blockIdx.x, n, o, 0, i, MatrixView<T, true>(x, i, n, i), MatrixView<T, true>(w, i, o, i), {bias, relu},
                       Rows<T>(y, o));
}

template <class Kind, typename T = Storage<Kind>>
__device__ void dense_dx(const T* dy, const T* w, T* dx, int n, int i, int o) {
    tile_product<Kind>(blockIdx.x, n, i, 0, o, MatrixView<T, true>(dy, o, n, o), MatrixView<T, false>(w, i, o, i), {},
                       Rows<T>(dx, i));
}

// Part z of the samples goes to part z of dw; sum.cu adds the parts.
template <class Kind, typename T = Storage<Kind>>
__device__ void dense_dw(const T* x, const T* dy, float* dw, int n, int i, int o, int rows_per_part) {
    const int begin = blockIdx.z * rows_per_part, end = min(n, begin + rows_per_part);
    tile_product<Kind>(blockIdx.x, o, i, begin, end, MatrixView<T, false>(dy, o, n, o), MatrixView<T, false>(x, i, n, i), {},
                       Rows<float>(dw + (long long)blockIdx.z * o * i, i));
}

extern "C" __global__ void __launch_bounds__(256, 2) dense_forward(
    const float* x,     // (N, I)
    const float* w,     // (O, I)
    const float* bias,  // (O), or null
    float* y,           // (N, O)
    int n, int i, int o, int relu) {
    dense_y<float>(x, w, bias, y, n, i, o, relu);
}

extern "C" __global__ void __launch_bounds__(128, 2) dense_forward_bf16(
    const __nv_bfloat16* x,  // (N, I)
    const __nv_bfloat16* w,  // (O, I)
    const float* bias,       // (O), or null
    __nv_bfloat16* y,        // (N, O)
    int n, int i, int o, int relu) {
    dense_y<bf16>(x, w, bias, y, n, i, o, relu);
}

extern "C" __global__ void __launch_bounds__(128, 2) dense_forward_tf32(
    const float* x,     // (N, I)
    const float* w,     // (O, I)
    const float* bias,  // (O), or null
    float* y,           // (N, O)
    int n, int i, int o, int relu) {
    dense_y<tf32>(x, w, bias, y, n, i, o, relu);
}

extern "C" __global__ void __launch_bounds__(256, 2) dense_backward_input(
    const float* dy,  // (N, O)
    const float* w,   // (O, I)
    float* dx,        // (N, I)
    int n, int i, int o) {
    dense_dx<float>(dy, w, dx, n, i, o);
}

extern "C" __global__ void __launch_bounds__(128, 2) dense_backward_input_bf16(
    const __nv_bfloat16* dy,  // (N, O)
    const __nv_bfloat16* w,   // (O, I)
    __nv_bfloat16* dx,        // (N, I)
    int n, int i, int o) {
    dense_dx<bf16>(dy, w, dx, n, i, o);
}

extern "C" __global__ void __launch_bounds__(128, 2) dense_backward_input_tf32(
    const float* dy,  // (N, O)
    const float* w,   // (O, I)
    float* dx,        // (N, I)
    int n, int i, int o) {
    dense_dx<tf32>(dy, w, dx, n, i, o);
}

extern "C" __global__ void __launch_bounds__(256, 2) dense_backward_weight(
    const float* x,   // (N, I)
    const float* dy,  // (N, O)
    float* dw,        // (parts, O, I)
    int n, int i, int o, int rows_per_part) {
    dense_dw<float>(x, dy, dw, n, i, o, rows_per_part);
}

extern "C" __global__ void __launch_bounds__(128, 2) dense_backward_weight_bf16(
    const __nv_bfloat16* x,   // (N, I)
    const __nv_bfloat16* dy,  // (N, O)
    float* dw,                // (parts, O, I)
    int n, int i, int o, int rows_per_part) {
    dense_dw<bf16>(x, dy, dw, n, i, o, rows_per_part);
}

extern "C" __global__ void __launch_bounds__(128, 2) dense_backward_weight_tf32(
    const float* x,   // (N, I)
    const float* dy,  // (N, O)
    float* dw,        // (parts, O, I)
    int n, int i, int o, int rows_per_part) {
    dense_dw<tf32>(x, dy, dw, n, i, o, rows_per_part);
}
