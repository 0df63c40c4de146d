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

// (x / scale - mean) / std, from a table of scale, means and deviations. Without a table, x stays raw for another step.
__device__ __forceinline__ float normalized(const float* table, int channel, int c, float x) {
    return table ? (x / table[0] - table[1 + channel]) / table[1 + c + channel] : x;
}
