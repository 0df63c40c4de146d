// Convolution as matrix products whose operands are read in place (implicit GEMM). Grid x and y count the tiles of the
// result, grid z equal groups. Pointers are to the first channel of the first group; strides are those of the whole
// tensors.
#include "conv_views.cuh"

// The pixels of a class in dx.
template <typename T> struct ClassRows {
    using Element = T;
    T* dx;
    const ConvGeometry& g;
    const Reach& r;
    bool paired;
    __device__ ClassRows(T* dx, const ConvGeometry& g, const Reach& r)
        : dx(dx), g(g), r(r), paired((unsigned long long)dx % (2 * sizeof(T)) == 0 && g.c % 2 == 0) {}
    __device__ T* line(int pixel) const {
        const int line = r.by_columns.quotient(pixel), sample = r.by_rows.quotient(line);
        const int h = r.h + (line - sample * r.rows) * g.stride_h, w = r.w + (pixel - line * r.columns) * g.stride_w;
        return dx + (((long long)sample * g.h + h) * g.w + w) * g.c;
    }
};

template <class Kind, int SIDE, typename T = Storage<Kind>>
__device__ void conv_forward(
    const T* x,         // (N, H, W, C)
    const T* w,         // (O, KH, KW, depth)
    const T* bias,      // (O), or null
    T* y,               // (N, OH, OW, O)
    ConvGeometry g, int outputs, int relu) {
    const int filter = g.kh * g.kw * g.depth, group = blockIdx.z;
    x += (long long)group * g.depth;
    w += (long long)group * outputs * filter;
    tile_product<Kind, SIDE>(blockIdx.x, g.n * g.oh * g.ow, outputs, 0, filter, WindowView<T, true>(x, g),
                       MatrixView<T, true>(w, filter, outputs, filter), {bias ? bias + group * outputs : nullptr, relu},
                       Rows<T>(y + group * outputs, g.o));
}
KERNEL(conv_forward, f32(256, 2, 3), bf16(128, 2, 4), tf32(128, 2, 4))

// Along grid x, the tiles of one class follow those of another.
template <class Kind, int SIDE, typename T = Storage<Kind>>
__device__ void conv_backward_input(
    const T* dy,  // (N, OH, OW, O)
    const T* w,   // (O, KH, KW, depth)
    T* dx,        // (N, H, W, C)
    ConvGeometry g, int outputs) {
    const int filter = g.kh * g.kw * g.depth, group = blockIdx.z;
    dy += group * outputs;
    w += (long long)group * outputs * filter;
    int block = blockIdx.x, index = 0;
    for (;; ++index) {
        const Reach reach(g, index);
        const int blocks = (g.n * reach.rows * reach.columns + SIDE - 1) / SIDE;
        if (block < blocks) break;
        block -= blocks;
    }
    const Reach r(g, index);
    tile_product<Kind, SIDE>(block, g.n * r.rows * r.columns, g.depth, 0, r.taps_h * r.taps_w * outputs,
                       ReachView<T>(dy, g, r, outputs), FilterView<T>(w, g, r, outputs), {},
                       ClassRows<T>(dx + (long long)group * g.depth, g, r));
}
KERNEL(conv_backward_input, f32(256, 2, 3), bf16(128, 2, 4), tf32(128, 2, 4))

// Grid z counts the parts of the output pixels and, within each part, the groups. Each part has its own dw; sum.cu adds
// them.
template <class Kind, int SIDE, typename T = Storage<Kind>>
__device__ void conv_backward_weight(
    const T* x,   // (N, H, W, C)
    const T* dy,  // (N, OH, OW, O)
    float* dw,    // (parts, O, KH, KW, depth)
    ConvGeometry g, int outputs, int groups, int pixels_per_part) {
    const int filter = g.kh * g.kw * g.depth, pixels = g.n * g.oh * g.ow;
    const int group = blockIdx.z % groups, part = blockIdx.z / groups;
    const int begin = part * pixels_per_part, end = min(pixels, begin + pixels_per_part);
    tile_product<Kind, SIDE>(blockIdx.x, outputs, filter, begin, end,
                       MatrixView<T, false>(dy + group * outputs, g.o, pixels, outputs),
                       WindowView<T, false>(x + (long long)group * g.depth, g), {},
                       Rows<float>(dw + ((long long)part * g.o + group * outputs) * filter, filter));
}
KERNEL(conv_backward_weight, f32(256, 2, 3), bf16(128, 2, 4), tf32(128, 2, 4))
