// The operands of a convolution as views of a product (tile.cuh), which read them in place (implicit GEMM).
#pragma once
#include "conv.cuh"
#include "tile.cuh"

// Division by an invariant number: n / by = n * factor / 2^(31 + shift) for 0 <= n < 2^31, where 2^shift >= by and the
// factor is 2^(31 + shift) / by rounded up (Granlund and Montgomery, https://doi.org/10.1145/178243.178249).
struct Divisor {
    unsigned factor;
    int by, shift;
    __device__ explicit Divisor(int number) : by(max(number, 1)), shift(32 - __clz(by - 1)) {
        const float inverse = 1.0f / (float)by;
        const long long power = 1ll << (31 + shift);
        // This is off by a few hundred at most, so the remainder is small enough for a float.
        long long near = (long long)((float)power * inverse);
        near += (int)floorf((float)(power - near * by) * inverse + 0.5f);
        factor = (unsigned)(near + (near * by < power));
    }
    __device__ int quotient(int n) const { return (int)(__umulhi(2u * (unsigned)n, factor) >> shift); }
};

// A row or column outside every image.
constexpr int OUTSIDE = -(1 << 30);

// Windows of x: slow = output pixel (n, oh, ow), fast = position in a filter (kh, kw, depth).
template <typename T, bool KFast> struct WindowView {
    static constexpr bool K_FAST = KFast;
    static constexpr int V = 16 / sizeof(T);
    const T* x;
    const ConvGeometry& g;
    bool wide;
    Divisor ow, oh, depth, kw;
    struct Slow {
        long long offset;  // of the first pixel of the window, even if it is outside the image
        int h, w;
    };
    struct Fast {
        int kh, kw, c;
        int offset;  // from the first pixel
    };
    __device__ WindowView(const T* x, const ConvGeometry& g)
        : x(x), g(g), wide(is_wide(x, g.c, g.depth)), ow(g.ow), oh(g.oh), depth(g.depth), kw(g.kw) {}
    __device__ Slow slow(int pixel) const {
        const int line = ow.quotient(pixel), sample = oh.quotient(line);
        const int h = (line - sample * g.oh) * g.stride_h - g.pad_h, w = (pixel - line * g.ow) * g.stride_w - g.pad_w;
        return {(long long)(sample * g.h + h) * (g.w * g.c) + w * g.c, sample < g.n ? h : OUTSIDE, w};
    }
    __device__ Fast fast(int place) const {
        const int tap = depth.quotient(place), kh = kw.quotient(tap);
        return moved({kh, tap - kh * g.kw, place - tap * g.depth, 0});
    }
    __device__ Fast moved(Fast f) const {
        f.offset = (f.kh * g.w + f.kw) * g.c + f.c;
        return f;
    }
    __device__ bool inside(const Slow& s, const Fast& f) const {
        return (f.kh < g.kh) & ((unsigned)(s.h + f.kh) < (unsigned)g.h) & ((unsigned)(s.w + f.kw) < (unsigned)g.w);
    }
    __device__ Chunk<T> chunk(const Slow& s, const Fast& f) const {
        if (!inside(s, f)) return {x, false};
        return {x + s.offset + f.offset, true};
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

// A class of input pixels, (h % stride_h, w % stride_w): those whose rows and columns have the same remainders modulo
// the strides. The same taps connect them with outputs, so no tap is multiplied that cannot reach them.
struct Reach {
    int h, w;              // the first pixel
    int rows, columns;     // pixels of one image
    int kh, kw;            // the first tap; the next ones are strides apart
    int taps_h, taps_w;    // number of taps
    int oh, ow;            // the output that the first tap connects with the first pixel; later taps: earlier outputs
    Divisor by_rows, by_columns, by_taps_w;
    __device__ static int steps(int from, int to, int stride) { return from < to ? (to - from + stride - 1) / stride : 0; }
    __device__ Reach(const ConvGeometry& g, int index)
        : h(index / g.stride_w), w(index % g.stride_w), rows(steps(h, g.h, g.stride_h)),
          columns(steps(w, g.w, g.stride_w)), kh((h + g.pad_h) % g.stride_h), kw((w + g.pad_w) % g.stride_w),
          taps_h(steps(kh, g.kh, g.stride_h)), taps_w(steps(kw, g.kw, g.stride_w)), oh((h + g.pad_h) / g.stride_h),
          ow((w + g.pad_w) / g.stride_w), by_rows(rows), by_columns(columns), by_taps_w(taps_w) {}
};

// Outputs that reach an input pixel: slow = pixel of the class (n, row, column), fast = (tap, output of the group).
template <typename T> struct ReachView {
    static constexpr bool K_FAST = true;
    static constexpr int V = 16 / sizeof(T);
    const T* dy;
    const ConvGeometry& g;
    const Reach& r;
    Divisor outputs;
    bool wide;
    struct Slow {
        long long offset;  // of the output of the first tap, even if it is outside the image
        int h, w;
    };
    struct Fast {
        int h, w, o;
        int offset;  // relative to the first tap's output
    };
    __device__ ReachView(const T* dy, const ConvGeometry& g, const Reach& r, int outputs)
        : dy(dy), g(g), r(r), outputs(outputs), wide(is_wide(dy, g.o, outputs)) {}
    __device__ Slow slow(int pixel) const {
        const int line = r.by_columns.quotient(pixel), sample = r.by_rows.quotient(line);
        const int h = r.oh + line - sample * r.rows, w = r.ow + pixel - line * r.columns;
        return {(long long)(sample * g.oh + h) * (g.ow * g.o) + w * g.o, sample < g.n ? h : OUTSIDE, w};
    }
    __device__ Fast fast(int place) const {
        const int tap = outputs.quotient(place), h = r.by_taps_w.quotient(tap);
        return moved({h, tap - h * r.taps_w, place - tap * outputs.by, 0});
    }
    __device__ Fast moved(Fast f) const {
        f.offset = f.o - (f.h * g.ow + f.w) * g.o;
        return f;
    }
    __device__ bool inside(const Slow& s, const Fast& f) const {
        return (f.h < r.taps_h) & ((unsigned)(s.h - f.h) < (unsigned)g.oh) & ((unsigned)(s.w - f.w) < (unsigned)g.ow);
    }
    __device__ Chunk<T> chunk(const Slow& s, const Fast& f) const {
        if (!inside(s, f)) return {dy, false};
        return {dy + s.offset + f.offset, true};
    }
    __device__ void load(T* out, const Slow& s, Fast f) const {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            out[v] = inside(s, f) ? dy[s.offset + f.offset] : from_float<T>(0.0f);
            if (++f.o < outputs.by) {
                ++f.offset;
                continue;
            }
            f.o = 0;
            if (++f.w == r.taps_w) {
                f.w = 0;
                ++f.h;
            }
            f = moved(f);
        }
    }
};

// Filters as used by a class of inputs: slow = (tap, output of the group), fast = channel.
template <typename T> struct FilterView {
    static constexpr bool K_FAST = false;
    static constexpr int V = 16 / sizeof(T);
    const T* w;
    const ConvGeometry& g;
    const Reach& r;
    Divisor outputs;
    bool wide;
    struct Slow {
        const T* row;
        bool there;
    };
    using Fast = int;
    __device__ FilterView(const T* w, const ConvGeometry& g, const Reach& r, int outputs)
        : w(w), g(g), r(r), outputs(outputs), wide(is_wide(w, g.depth, g.depth)) {}
    __device__ Slow slow(int place) const {
        const int tap = outputs.quotient(place), o = place - tap * outputs.by, down = r.by_taps_w.quotient(tap);
        const int kh = r.kh + down * g.stride_h, kw = r.kw + (tap - down * r.taps_w) * g.stride_w;
        return {w + (long long)((o * g.kh + kh) * g.kw + kw) * g.depth, down < r.taps_h};
    }
    __device__ Fast fast(int channel) const { return channel; }
    __device__ Chunk<T> chunk(Slow slow, Fast c) const {
        if (!(slow.there & (c < g.depth))) return {w, false};
        return {slow.row + c, true};
    }
    __device__ void load(T* out, Slow slow, Fast c) const {
#pragma unroll
        for (int v = 0; v < V; ++v) out[v] = slow.there && c + v < g.depth ? slow.row[c + v] : from_float<T>(0.0f);
    }
};
