// Maxout: y = the largest of `pieces` neighbouring elements of x; dx is dy at the first of them, 0 elsewhere. NaN is larger
// than any number.
#include "block.cuh"

template <typename T> __device__ __forceinline__ int largest_of(const T* x, int pieces) {
    int best = 0;
    for (int j = 1; j < pieces; ++j) {
        const float most = to_float(x[best]), next = to_float(x[j]);
        if (most == most && (next > most || next != next)) best = j;
    }
    return best;
}

template <typename T>
__device__ void maxout_forward(
    const T* x,  // (n, pieces)
    T* y,        // (n)
    long long n, int pieces) {
    const long long i = vector_start<T>();
    if (i >= n) return;
    Vector<T> values;
    for (int j = 0; j < Vector<T>::SIZE; ++j) {
        const T* own = x + min(i + j, n - 1) * pieces;
        values.at[j] = own[largest_of(own, pieces)];
    }
    store_vector(y, i, n, values);
}
KERNEL(maxout_forward, f32, bf16)

template <typename T>
__device__ void maxout_backward(
    const T* x,   // (n, pieces)
    const T* dy,  // (n)
    T* dx,        // (n, pieces)
    long long n, int pieces) {
    const long long i = vector_start<T>();
    const Vector<T> above = load_vector(dy, i, n);
    for (int j = 0; j < Vector<T>::SIZE && i + j < n; ++j) {
        const long long first = (i + j) * pieces;
        const int best = largest_of(x + first, pieces);
        for (int k = 0; k < pieces; ++k) dx[first + k] = k == best ? above.at[j] : from_float<T>(0.0f);
    }
}
KERNEL(maxout_backward, f32, bf16)
