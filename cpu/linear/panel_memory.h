// What a thread of a product of many rows keeps: the panels of some row blocks, unpacked once for all tiles, and the sums.
#pragma once

#include "linear.h"

namespace parlor {
namespace PARLOR_ISA_NS {

// The panels, then sums [tile][row block][kRows][16].
template <class Panel, int kRows, int64_t kRowBlocks>
struct PanelMemory {
    Panel* panels;
    float* sums;

    explicit PanelMemory(void* memory)
        : panels(static_cast<Panel*>(memory)), sums(reinterpret_cast<float*>(panels + kRowBlocks)) {}

    float* sums_of(int64_t tile, int64_t i) const { return sums + (tile * kRowBlocks + i) * kRows * kLanes; }
    void clear(int64_t num_tiles) const {
        __builtin_memset(sums, 0, num_tiles * kRowBlocks * kRows * kLanes * sizeof(float));
    }

    static int64_t bytes(int64_t rows) {
        const int64_t num_tiles = (rows + kRows - 1) / kRows;
        const int64_t sum_bytes = kRows * kLanes * static_cast<int64_t>(sizeof(float)) * num_tiles;
        return kRowBlocks * (static_cast<int64_t>(sizeof(Panel)) + sum_bytes);
    }
};

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
