// The geometry of a convolution, as passed to its kernels.
#pragma once

struct ConvGeometry {
    int n, h, w, c;     // the input: samples, image, channels on this device
    int oh, ow, o;      // the output image, channels on this device
    int kh, kw, depth;  // a filter
    int stride_h, stride_w, pad_h, pad_w;
};
