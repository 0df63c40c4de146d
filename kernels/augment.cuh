// Images as augmentations read and write them. The random values of every image are drawn on the host. Each product is rounded
// separately, as on the CPU, so a batch has the same bits wherever it is prepared.
#pragma once
#include "block.cuh"

// Raw pixels: 8-bit values, or floats if `floats` is not null.
struct Pixels {
    const unsigned char* bytes;
    const float* floats;
    __device__ __forceinline__ float at(long long i) const { return floats ? floats[i] : (float)bytes[i]; }
};

// (x / scale - mean) / std of value `at` of an image, from a table: scale, the number p of means, the means and the deviations of the first p
// values, which repeat: channels or all values. Without a table, x stays raw for another step.
__device__ __forceinline__ float normalized(const float* table, int at, float x) {
    if (!table) return x;
    const int period = (int)table[1], i = at % period;
    return (x / table[0] - table[2 + i]) / table[2 + period + i];
}
