// Convolution as products of matrices whose operands are read from where they lie (implicit GEMM).
// Outputs of one group at a time, or of as many equal groups as grid z (forward, backward_input). Grid x and y are
// tiles of the result. Pointers are to the first channel of the first group, strides are the whole tensors'.
#include "tile.cuh"

struct Geometry {
    int n, h, w, c;     // the input: samples, image, channels held
    int oh, ow, o;      // the output image, channels held
    int kh, kw, depth;  // a filter
    int stride_h, stride_w, pad_h, pad_w;
};

// Windows of x: slow = output pixel (n, oh, ow), fast = place in a filter (kh, kw, depth).
template <typename T, bool KFast> struct WindowView {
    static constexpr bool K_FAST = KFast;
    static constexpr int V = 16 / sizeof(T);
    const T* x;
    const Geometry& g;
    bool wide;
    struct Slow {
        long long offset;  // of the first pixel of the window, even where it lies outside the image
        int h, w;
    };
    struct Fast {
        int kh, kw, c;
        int offset;  // from the first pixel
    };
    __device__ WindowView(const T* x, const Geometry& g) : x(x), g(g), wide(is_wide(x, g.c) && g.depth % V == 0) {}
    __device__ Slow slow(int pixel) const {
        // Far above any window.
        if (pixel >= g.n * g.oh * g.ow) return {0, -(1 << 30), 0};
        const int line = pixel / g.ow, sample = line / g.oh;
        const int h = (line - sample * g.oh) * g.stride_h - g.pad_h, w = (pixel - line * g.ow) * g.stride_w - g.pad_w;
        return {(((long long)sample * g.h + h) * g.w + w) * g.c, h, w};
    }
    __device__ Fast fast(int place) const {
        const int tap = place / g.depth, kh = tap / g.kw;
        return moved({kh, tap - kh * g.kw, place - tap * g.depth, 0});
    }
    __device__ Fast moved(Fast f) const {
        f.offset = (f.kh * g.w + f.kw) * g.c + f.c;
        return f;
    }
    __device__ bool inside(const Slow& s, const Fast& f) const {
        return f.kh < g.kh && (unsigned)(s.h + f.kh) < (unsigned)g.h && (unsigned)(s.w + f.kw) < (unsigned)g.w;
    }
    __device__ Chunk<T> chunk(const Slow& s, const Fast& f) const {
        if (!inside(s, f)) return {x, 0};
        return {x + s.offset + f.offset, V};
    }
    __device__ void load(T* out, const Slow& s, Fast f) const {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            out[v] = inside(s, f) ? x[s.offset + f.offset] : from_float<T>(0.0f);
            if (++f.c < g.depth) {
                ++f.offset;
                continue;
            }
            f.c = 0;
            if (++f.kw == g.kw) {
                f.kw = 0;
                ++f.kh;
            }
            f = moved(f);
        }
    }
};

// Outputs that an input pixel reaches: slow = input pixel (n, h, w), fast = (kh, kw, output of the group).
template <typename T> struct ReachView {
    static constexpr bool K_FAST = true;
    static constexpr int V = 16 / sizeof(T);
    const T* dy;
    const Geometry& g;
    int outputs;
    bool wide;
    struct Slow {
        const T* sample;  // null outside
        int h, w;
    };
    struct Fast {
        int kh, kw, o;
    };
    __device__ ReachView(const T* dy, const Geometry& g, int outputs)
        : dy(dy), g(g), outputs(outputs), wide(is_wide(dy, g.o) && outputs % V == 0) {}
    __device__ Slow slow(int pixel) const {
        if (pixel >= g.n * g.h * g.w) return {nullptr, 0, 0};
        const int sample = pixel / (g.h * g.w), row = pixel / g.w % g.h, column = pixel % g.w;
        const long long image = (long long)g.oh * g.ow * g.o;
        return {dy + sample * image, row + g.pad_h, column + g.pad_w};
    }
    __device__ Fast fast(int place) const {
        return {place / (g.kw * outputs), place / outputs % g.kw, place % outputs};
    }
    __device__ const T* at(const Slow& s, const Fast& f) const {
        const int h = s.h - f.kh, w = s.w - f.kw;
        if (!s.sample || f.kh >= g.kh || h < 0 || w < 0 || h % g.stride_h || w % g.stride_w) return nullptr;
        const int oh = h / g.stride_h, ow = w / g.stride_w;
        return oh < g.oh && ow < g.ow ? s.sample + ((long long)oh * g.ow + ow) * g.o + f.o : nullptr;
    }
    __device__ Chunk<T> chunk(const Slow& s, const Fast& f) const {
        const T* from = at(s, f);
        if (!from) return {dy, 0};
        return {from, V};
    }
    __device__ void load(T* out, const Slow& s, Fast f) const {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            const T* from = at(s, f);
            out[v] = from ? *from : from_float<T>(0.0f);
            if (++f.o < outputs) continue;
            f.o = 0;
            if (++f.kw < g.kw) continue;
            f.kw = 0;
            ++f.kh;
        }
    }
};

// Filters seen from their inputs: slow = (kh, kw, output of the group), fast = channel.
template <typename T> struct FilterView {
    static constexpr bool K_FAST = false;
    static constexpr int V = 16 / sizeof(T);
    const T* w;
    const Geometry& g;
    int outputs;
    bool wide;
    struct Slow {
        const T* row;  // null outside
    };
    using Fast = int;
    __device__ FilterView(const T* w, const Geometry& g, int outputs)
        : w(w), g(g), outputs(outputs), wide(is_wide(w, g.depth)) {}
    __device__ Slow slow(int place) const {
        if (place >= g.kh * g.kw * outputs) return {nullptr};
        const int tap = place / outputs, o = place % outputs;
        return {w + ((long long)o * g.kh * g.kw + tap) * g.depth};
    }
    __device__ Fast fast(int channel) const { return channel; }
    __device__ Chunk<T> chunk(Slow slow, Fast c) const {
        if (!slow.row || c >= g.depth) return {w, 0};
        return {slow.row + c, min(V, g.depth - c)};
    }
    __device__ void load(T* out, Slow slow, Fast c) const {
#pragma unroll
        for (int v = 0; v < V; ++v) out[v] = slow.row && c + v < g.depth ? slow.row[c + v] : from_float<T>(0.0f);
    }
};

template <class Kind, typename T = Storage<Kind>>
__device__ void conv_y(const T* x, const T* w, const float* bias, T* y, const Geometry& g, int outputs) {
    const int filter = g.kh * g.kw * g.depth, group = blockIdx.z;
    x += (long long)group * g.depth;
    w += (long long)group * outputs * filter;
    tile_product<Kind>(g.n * g.oh * g.ow, outputs, 0, filter, WindowView<T, true>(x, g),
                       MatrixView<T, true>(w, filter, outputs, filter), bias ? bias + group * outputs : nullptr,
                       Rows<T>(y + group * outputs, g.o));
}

template <class Kind, typename T = Storage<Kind>>
__device__ void conv_dx(const T* dy, const T* w, T* dx, const Geometry& g, int outputs) {
    const int filter = g.kh * g.kw * g.depth, group = blockIdx.z;
    dy += group * outputs;
    w += (long long)group * outputs * filter;
    tile_product<Kind>(g.n * g.h * g.w, g.depth, 0, g.kh * g.kw * outputs, ReachView<T>(dy, g, outputs),
                       FilterView<T>(w, g, outputs), nullptr, Rows<T>(dx + (long long)group * g.depth, g.c));
}

// Part z of the output pixels goes to part z of dw; sum.cu adds the parts.
template <class Kind, typename T = Storage<Kind>>
__device__ void conv_dw(const T* x, const T* dy, float* dw, const Geometry& g, int outputs, int pixels_per_part) {
    const int filter = g.kh * g.kw * g.depth, pixels = g.n * g.oh * g.ow;
    const int begin = blockIdx.z * pixels_per_part, end = min(pixels, begin + pixels_per_part);
    tile_product<Kind>(outputs, filter, begin, end, MatrixView<T, false>(dy, g.o, pixels, outputs),
                       WindowView<T, false>(x, g), nullptr,
                       Rows<float>(dw + (long long)blockIdx.z * g.o * filter, filter));
}

extern "C" __global__ void __launch_bounds__(256, 2) conv_forward(
    const float* x,     // (N, H, W, C)
    const float* w,     // (O, KH, KW, depth)
    const float* bias,  // (O), or null
    float* y,           // (N, OH, OW, O)
    int n, int h, int width, int c, int oh, int ow, int o, int kh, int kw, int depth, int stride_h, int stride_w,
    int pad_h, int pad_w, int outputs) {
    conv_y<float>(x, w, bias, y, {n, h, width, c, oh, ow, o, kh, kw, depth, stride_h, stride_w, pad_h, pad_w}, outputs);
}

extern "C" __global__ void __launch_bounds__(256, 2) conv_forward_bf16(
    const __nv_bfloat16* x,  // (N, H, W, C)
    const __nv_bfloat16* w,  // (O, KH, KW, depth)
    const float* bias,       // (O), or null
    __nv_bfloat16* y,        // (N, OH, OW, O)
    int n, int h, int width, int c, int oh, int ow, int o, int kh, int kw, int depth, int stride_h, int stride_w,
    int pad_h, int pad_w, int outputs) {
    conv_y<bf16>(x, w, bias, y, {n, h, width, c, oh, ow, o, kh, kw, depth, stride_h, stride_w, pad_h, pad_w}, outputs);
}

extern "C" __global__ void __launch_bounds__(256, 2) conv_forward_tf32(
    const float* x,     // (N, H, W, C)
    const float* w,     // (O, KH, KW, depth)
    const float* bias,  // (O), or null
    float* y,           // (N, OH, OW, O)
    int n, int h, int width, int c, int oh, int ow, int o, int kh, int kw, int depth, int stride_h, int stride_w,
    int pad_h, int pad_w, int outputs) {
    conv_y<tf32>(x, w, bias, y, {n, h, width, c, oh, ow, o, kh, kw, depth, stride_h, stride_w, pad_h, pad_w}, outputs);
}

extern "C" __global__ void __launch_bounds__(256, 2) conv_backward_input(
    const float* dy,  // (N, OH, OW, O)
    const float* w,   // (O, KH, KW, depth)
    float* dx,        // (N, H, W, C)
    int n, int h, int width, int c, int oh, int ow, int o, int kh, int kw, int depth, int stride_h, int stride_w,
    int pad_h, int pad_w, int outputs) {
    conv_dx<float>(dy, w, dx, {n, h, width, c, oh, ow, o, kh, kw, depth, stride_h, stride_w, pad_h, pad_w}, outputs);
}

extern "C" __global__ void __launch_bounds__(256, 2) conv_backward_input_bf16(
    const __nv_bfloat16* dy,  // (N, OH, OW, O)
    const __nv_bfloat16* w,   // (O, KH, KW, depth)
    __nv_bfloat16* dx,        // (N, H, W, C)
    int n, int h, int width, int c, int oh, int ow, int o, int kh, int kw, int depth, int stride_h, int stride_w,
    int pad_h, int pad_w, int outputs) {
    conv_dx<bf16>(dy, w, dx, {n, h, width, c, oh, ow, o, kh, kw, depth, stride_h, stride_w, pad_h, pad_w}, outputs);
}

extern "C" __global__ void __launch_bounds__(256, 2) conv_backward_input_tf32(
    const float* dy,  // (N, OH, OW, O)
    const float* w,   // (O, KH, KW, depth)
    float* dx,        // (N, H, W, C)
    int n, int h, int width, int c, int oh, int ow, int o, int kh, int kw, int depth, int stride_h, int stride_w,
    int pad_h, int pad_w, int outputs) {
    conv_dx<tf32>(dy, w, dx, {n, h, width, c, oh, ow, o, kh, kw, depth, stride_h, stride_w, pad_h, pad_w}, outputs);
}

extern "C" __global__ void __launch_bounds__(256, 2) conv_backward_weight(
    const float* x,   // (N, H, W, C)
    const float* dy,  // (N, OH, OW, O)
    float* dw,        // (parts, O, KH, KW, depth)
    int n, int h, int width, int c, int oh, int ow, int o, int kh, int kw, int depth, int stride_h, int stride_w,
    int pad_h, int pad_w, int outputs, int pixels_per_part) {
    const Geometry g = {n, h, width, c, oh, ow, o, kh, kw, depth, stride_h, stride_w, pad_h, pad_w};
    conv_dw<float>(x, dy, dw, g, outputs, pixels_per_part);
}

extern "C" __global__ void __launch_bounds__(256, 2) conv_backward_weight_bf16(
    const __nv_bfloat16* x,   // (N, H, W, C)
    const __nv_bfloat16* dy,  // (N, OH, OW, O)
    float* dw,                // (parts, O, KH, KW, depth)
    int n, int h, int width, int c, int oh, int ow, int o, int kh, int kw, int depth, int stride_h, int stride_w,
    int pad_h, int pad_w, int outputs, int pixels_per_part) {
    const Geometry g = {n, h, width, c, oh, ow, o, kh, kw, depth, stride_h, stride_w, pad_h, pad_w};
    conv_dw<bf16>(x, dy, dw, g, outputs, pixels_per_part);
}

extern "C" __global__ void __launch_bounds__(256, 2) conv_backward_weight_tf32(
    const float* x,   // (N, H, W, C)
    const float* dy,  // (N, OH, OW, O)
    float* dw,        // (parts, O, KH, KW, depth)
    int n, int h, int width, int c, int oh, int ow, int o, int kh, int kw, int depth, int stride_h, int stride_w,
    int pad_h, int pad_w, int outputs, int pixels_per_part) {
    const Geometry g = {n, h, width, c, oh, ow, o, kh, kw, depth, stride_h, stride_w, pad_h, pad_w};
    conv_dw<tf32>(x, dy, dw, g, outputs, pixels_per_part);
}
