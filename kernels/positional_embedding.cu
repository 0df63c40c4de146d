// Adds the same values to every sample: y = x + w.
#include "block.cuh"

template <typename T>
__device__ void positional_embedding_forward(
    const T* x,      // (N, image)
    const float* w,  // (image)
    T* y,            // (N, image)
    long long n, long long image) {
    const long long i = vector_start<T>();
    if (i >= n) return;
    Vector<T> vector = load_vector(x, i, n);
    long long at = i % image;
    for (int j = 0; j < Vector<T>::SIZE; ++j) {
        vector.at[j] = from_float<T>(to_float(vector.at[j]) + w[at]);
        if (++at == image) at = 0;
    }
    store_vector(y, i, n, vector);
}
KERNEL(positional_embedding_forward, f32, bf16)
