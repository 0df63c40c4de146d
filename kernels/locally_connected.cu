// Locally connected layer: a convolution with filters of their own at each position of the output. Each position, or for dx each pixel
// of x, is a product whose rows (for dw: ks) are the samples: a convolution with a single output (or input) pixel, whose operands are
// read in place. Along grid x, the tiles of one product follow those of another; grid y counts tiles as well.
#include "columns.cuh"
#include "conv_views.cuh"

// A block's product, and its tile among those of this product along grid x.
struct Turn {
    int product, tile;
    __device__ Turn(int rows, int side) {
        const int tiles = (rows + side - 1) / side;
        product = blockIdx.x / tiles;
        tile = blockIdx.x - product * tiles;
    }
};

// The convolution whose only output is at a position.
__device__ __forceinline__ ConvGeometry at_position(ConvGeometry g, int position) {
    const int row = position / g.ow;
    g.pad_h -= row * g.stride_h;
    g.pad_w -= (position - row * g.ow) * g.stride_w;
    g.oh = g.ow = 1;
    return g;
}

// The convolution whose images have only one pixel, with padding in place of the pixels before it.
__device__ __forceinline__ ConvGeometry at_pixel(ConvGeometry g, int pixel) {
    const int row = pixel / g.w;
    g.pad_h += row;
    g.pad_w += pixel - row * g.w;
    g.h = g.w = 1;
    return g;
}

// Filters as used by a pixel of x: slow = (tap, output), fast = channel. The tap determines the position whose filters are read.
template <typename T> struct OwnFilterView : FilterView<T> {
    using Slow = typename FilterView<T>::Slow;
    __device__ OwnFilterView(const T* w, const ConvGeometry& g, const Reach& r, int outputs) : FilterView<T>(w, g, r, outputs) {}
    __device__ Slow slow(int place) const {
        const ConvGeometry& g = this->g;
        const Reach& r = this->r;
        const int tap = this->outputs.quotient(place), o = place - tap * this->outputs.by;
        const int down = r.by_taps_w.quotient(tap), right = tap - down * r.taps_w, oh = r.oh - down, ow = r.ow - right;
        const int kh = r.kh + down * g.stride_h, kw = r.kw + right * g.stride_w;
        const long long filter = ((long long)o * g.oh + oh) * g.ow + ow;
        const bool there = (down < r.taps_h) & ((unsigned)oh < (unsigned)g.oh) & ((unsigned)ow < (unsigned)g.ow);
        return {this->w + ((filter * g.kh + kh) * g.kw + kw) * g.depth, there};
    }
};

template <class Kind, int SIDE, typename T = Storage<Kind>>
__device__ void locally_connected_forward(
    const T* x,         // (N, H, W, C)
    const T* w,         // (O, OH * OW, KH * KW, C)
    const T* bias,      // (O, OH * OW), or null
    T* y,               // (N, OH, OW, O)
    ConvGeometry g, int relu) {
    const Turn turn(g.n, SIDE);
    const ConvGeometry own = at_position(g, turn.product);
    const int filter = g.kh * g.kw * g.depth, positions = g.oh * g.ow;
    tile_product<Kind, SIDE>(turn.tile, g.n, g.o, 0, filter, WindowView<T, true>(x, own),
                       MatrixView<T, true>(w + (long long)turn.product * filter, positions * filter, g.o, filter),
                       {bias ? bias + turn.product : nullptr, relu, positions},
                       Rows<T>(y + (long long)turn.product * g.o, positions * g.o));
}
KERNEL(locally_connected_forward, f32(256, 2, 3), bf16(128, 2, 4), tf32(128, 2, 4))

template <class Kind, int SIDE, typename T = Storage<Kind>>
__device__ void locally_connected_backward_input(
    const T* dy,  // (N, OH, OW, O)
    const T* w,   // (O, OH * OW, KH * KW, C)
    T* dx,        // (N, H, W, C)
    ConvGeometry g) {
    const Turn turn(g.n, SIDE);
    const ConvGeometry own = at_pixel(g, turn.product);
    const Reach r(own, 0);
    tile_product<Kind, SIDE>(turn.tile, g.n, g.depth, 0, r.taps_h * r.taps_w * g.o, ReachView<T>(dy, own, r, g.o),
                       OwnFilterView<T>(w, own, r, g.o), {},
                       Rows<T>(dx + (long long)turn.product * g.c, (long long)g.h * g.w * g.c));
}
KERNEL(locally_connected_backward_input, f32(256, 2, 3), bf16(128, 2, 4), tf32(128, 2, 4))

template <class Kind, int SIDE, typename T = Storage<Kind>>
__device__ void locally_connected_backward_weight(
    const T* x,   // (N, H, W, C)
    const T* dy,  // (N, OH, OW, O)
    float* dw,    // (O, OH * OW, KH * KW, C)
    ConvGeometry g) {
    const Turn turn(g.o, SIDE);
    const ConvGeometry own = at_position(g, turn.product);
    const int filter = g.kh * g.kw * g.depth, positions = g.oh * g.ow;
    tile_product<Kind, SIDE>(turn.tile, g.o, filter, 0, g.n,
                       MatrixView<T, false>(dy + (long long)turn.product * g.o, positions * g.o, g.n, g.o),
                       WindowView<T, false>(x, own), {},
                       Rows<float>(dw + (long long)turn.product * filter, positions * filter));
}
KERNEL(locally_connected_backward_weight, f32(256, 2, 3), bf16(128, 2, 4), tf32(128, 2, 4))

// A block sums 32 columns of dy over the samples.
template <typename T>
__device__ void locally_connected_backward_bias(
    const T* dy,  // (N, OH * OW, O)
    float* db,    // (O, OH * OW)
    int n, int positions, int o) {
    const long long columns = (long long)positions * o, column = blockIdx.x * 32ll + threadIdx.x;
    const float sum = column_sum(dy, blockIdx.x, 0, n, columns);
    if (threadIdx.x < 32 && column < columns) db[column % o * positions + column / o] = sum;
}
KERNEL(locally_connected_backward_bias, f32, bf16)
