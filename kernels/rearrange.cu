// Copies elements of each sample to other places: a box of up to 5 dims with its own strides on either side. Each element of the
// source may have several copies in the target; back from there, they are added up.
#include "block.cuh"

struct MoveGeometry {
    int d0, d1, d2, d3, d4;  // the box
    int f0, f1, f2, f3, f4;  // strides of the source
    int t0, t1, t2, t3, t4;  // strides of the target
    int c0, c1, s0, s1;      // copies of an element, and their strides
    int from, to;            // the first element of a sample
    int source, target;      // elements of a sample
    int back;                // whether the copies are in the source
};

template <typename T>
__device__ void rearrange(
    const T* x,  // (N, source)
    T* y,        // (N, target)
    long long n, MoveGeometry g) {
    const auto one = [&](auto size, long long i) {
        constexpr int V = decltype(size)::value;
        const int box = g.d0 * g.d1 * g.d2 * g.d3 * g.d4;
        const long long sample = i / box;
        int rest = (int)(i - sample * box);
        const int i4 = rest % g.d4;
        rest /= g.d4;
        const int i3 = rest % g.d3;
        rest /= g.d3;
        const int i2 = rest % g.d2;
        rest /= g.d2;
        const int i1 = rest % g.d1, i0 = rest / g.d1;
        const T* source = x + sample * g.source + g.from + i0 * g.f0 + i1 * g.f1 + i2 * g.f2 + i3 * g.f3 + i4 * g.f4;
        T* target = y + sample * g.target + g.to + i0 * g.t0 + i1 * g.t1 + i2 * g.t2 + i3 * g.t3 + i4 * g.t4;
        if (!g.back) {
            const Run<T, V> run = load_run<V>(source);
            for (int a = 0; a < g.c0; ++a)
                for (int b = 0; b < g.c1; ++b) *(Run<T, V>*)(target + a * g.s0 + b * g.s1) = run;
            return;
        }
        float sums[V] = {};
        for (int a = 0; a < g.c0; ++a) {
            for (int b = 0; b < g.c1; ++b) {
                const Run<T, V> run = load_run<V>(source + a * g.s0 + b * g.s1);
#pragma unroll
                for (int j = 0; j < V; ++j) sums[j] += to_float(run.at[j]);
            }
        }
        store_run(target, sums);
    };
    // Whole vectors, if every row of the box begins at one on both sides.
    const int all = g.f0 | g.f1 | g.f2 | g.f3 | g.t0 | g.t1 | g.t2 | g.t3 | g.s0 | g.s1 | g.from | g.to | g.source |
                    g.target;
    const bool rows = g.f4 == 1 && g.t4 == 1 && all % Vector<T>::SIZE == 0;
    each_run<T>(n, rows ? g.d4 : 1, one, x, y);
}
KERNEL(rearrange, f32, bf16)
