// Low-rank products beside a weight: out += scale * (x @ down^T) @ up, by the adapter of each row.
//
// Bound by reading down and up once for each tile of rows that share an adapter: two or four bytes a number, rank * (k + n)
// of them (0.8 MB for gate and up of a 1.1B model at rank 16, a twentieth of their 4-bit weights).
// First the rows are normalized; then each number of x @ down^T is one sum over the columns, in lanes; then each output one
// sum over the rank. So a row comes to the same bits whatever tile it is in and whoever computes it.
// Reference: lora() in model/kernels/reference/lora.py.
#include <algorithm>
#include <cmath>

#include "operations.h"
#include "simd.h"
#include "thread_team.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int64_t kTileRows = 4;     // rows that share what is read of an adapter; with kTileRanks sums in registers
constexpr int64_t kTileRanks = 4;
constexpr int64_t kOutputs = 256;    // a thread's share of a tile's outputs
constexpr int64_t kValues = 16384;   // products worth another thread (about 2 us)

struct Tile {
    const lora_adapter* adapter;
    int64_t first, count;  // rows
};

// Rows one behind the other with one adapter, kTileRows at most; rows without one are left out.
int64_t find_tiles(const LoraArgs& a, Tile* tiles) {
    int64_t num_tiles = 0;
    for (int64_t row = 0; row < a.num_rows; ++row) {
        if (a.row_adapters[row] < 0) continue;
        const lora_adapter* const adapter = a.adapters + a.row_adapters[row];
        if (adapter->rank == 0) continue;
        Tile* const last = tiles + num_tiles - 1;
        if (num_tiles > 0 && last->adapter == adapter && last->first + last->count == row && last->count < kTileRows)
            ++last->count;
        else
            tiles[num_tiles++] = {adapter, row, 1};
    }
    return num_tiles;
}

void normalize_row(const LoraArgs& a, int64_t row, float* out) {
    const float* const x = a.x + row * a.x_stride;
    Vec squares = zero();
    for_lanes(a.k, [&](int64_t i) { squares = fma(load(x + i), load(x + i), squares); },
              [&](int64_t i, int64_t n) { squares = fma(load_n(x + i, n), load_n(x + i, n), squares); });
    const Vec factor = set1(1.0f / std::sqrt(sum(squares) / static_cast<float>(a.k) + a.eps));
    for_lanes(a.k, [&](int64_t i) { store(out + i, load(x + i) * factor * load(a.norm_weight + i)); },
              [&](int64_t i, int64_t n) {
                  store_n(out + i, load_n(x + i, n) * factor * load_n(a.norm_weight + i, n), n);
              });
}

// products[row][rank] of kRows rows x kRanks rows of down.
template <int kRows, int kRanks, class Element>
void multiply_down(const float* x, int64_t x_stride, const Element* down, int64_t k, float* products, int64_t stride) {
    Vec sums[kRows][kRanks];
    for (auto& of_row : sums)
        for (Vec& one : of_row) one = zero();
    const auto add = [&](auto load_x, auto load_down) {
        Vec of_x[kRows];
        for (int row = 0; row < kRows; ++row) of_x[row] = load_x(x + row * x_stride);
        for (int rank = 0; rank < kRanks; ++rank) {
            const Vec of_down = load_down(down + rank * k);
            for (int row = 0; row < kRows; ++row) sums[row][rank] = fma(of_x[row], of_down, sums[row][rank]);
        }
    };
    for_lanes(k, [&](int64_t i) { add([i](const float* p) { return load(p + i); }, [i](const Element* p) { return load(p + i); }); },
              [&](int64_t i, int64_t n) {
                  add([i, n](const float* p) { return load_n(p + i, n); }, [i, n](const Element* p) { return load_n(p + i, n); });
              });
    for (int row = 0; row < kRows; ++row)
        for (int rank = 0; rank < kRanks; ++rank) products[row * stride + rank] = sum(sums[row][rank]);
}

template <class Element>
void multiply_down_tile(const float* x, int64_t x_stride, int64_t rows, const Element* down, int64_t ranks, int64_t k,
                        float* products, int64_t stride) {
    if (rows == kTileRows && ranks == kTileRanks)
        return multiply_down<kTileRows, kTileRanks>(x, x_stride, down, k, products, stride);
    for (int64_t row = 0; row < rows; ++row) {
        const float* const of_x = x + row * x_stride;
        float* const own = products + row * stride;
        if (ranks == kTileRanks)
            multiply_down<1, kTileRanks>(of_x, x_stride, down, k, own, stride);
        else
            for (int64_t rank = 0; rank < ranks; ++rank) multiply_down<1, 1>(of_x, x_stride, down + rank * k, k, own + rank, stride);
    }
}

// out[first .. last - 1] += scale * products @ up, of one row and one segment.
template <class Element>
void add_outputs(const float* products, int64_t rank, const Element* up, int64_t count, float scale, int64_t first,
                 int64_t last, float* out) {
    const Vec factor = set1(scale);
    const auto sum_over_rank = [&](int64_t at, auto load_up) {
        Vec total = zero();
        for (int64_t r = 0; r < rank; ++r) total = fma(load_up(up + r * count + at), set1(products[r]), total);
        return total;
    };
    for_lanes(last - first,
              [&](int64_t i) {
                  const Vec added = sum_over_rank(first + i, [](const Element* p) { return load(p); });
                  store(out + first + i, fma(added, factor, load(out + first + i)));
              },
              [&](int64_t i, int64_t n) {
                  const Vec added = sum_over_rank(first + i, [n](const Element* p) { return load_n(p, n); });
                  store_n(out + first + i, fma(added, factor, load_n(out + first + i, n)), n);
              });
}

// f(pointer to the first element of `numbers`), by dtype.
template <class Function>
void with_elements(const void* numbers, int64_t dtype, Function f) {
    if (dtype == PARLOR_F16) f(static_cast<const half_t*>(numbers));
    else if (dtype == PARLOR_BF16) f(static_cast<const bfloat_t*>(numbers));
    else f(static_cast<const float*>(numbers));
}

// f(tile, part) for every part 0 .. parts(tile) - 1 of every tile. Each tile counts as if it had the most parts.
template <class Parts, class Function>
void for_parts(const Tile* tiles, int64_t num_tiles, int64_t values, Parts parts, Function f) {
    int64_t most = 0;
    for (int64_t i = 0; i < num_tiles; ++i) most = std::max(most, parts(tiles[i]));
    team().parallel_for(num_tiles * most, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i)
            if (i % most < parts(tiles[i / most])) f(tiles[i / most], i % most);
    }, std::max<int64_t>(1, kValues / std::max<int64_t>(1, values)));
}

}  // namespace

int add_lora(const LoraArgs& a) {
    const int64_t staged_stride = a.norm_weight ? a.k : 0;
    int64_t max_rank = 0;
    for (int64_t i = 0; i < a.num_adapters; ++i) max_rank = std::max(max_rank, a.adapters[i].rank);
    const int64_t floats = a.num_rows * (staged_stride + max_rank);
    char* const memory = static_cast<char*>(team().scratch(a.num_rows * sizeof(Tile) + floats * sizeof(float)));
    if (!memory) return PARLOR_ERROR_MEMORY;
    Tile* const tiles = reinterpret_cast<Tile*>(memory);
    float* const products = reinterpret_cast<float*>(tiles + a.num_rows);
    float* const staged = products + a.num_rows * max_rank;
    const int64_t num_tiles = find_tiles(a, tiles);
    const float* const x = a.norm_weight ? staged : a.x;
    const int64_t x_stride = a.norm_weight ? a.k : a.x_stride;
    if (a.norm_weight) {
        for_parts(tiles, num_tiles, a.k * kTileRows, [](const Tile&) { return int64_t{1}; }, [&](const Tile& tile, int64_t) {
            for (int64_t row = tile.first; row < tile.first + tile.count; ++row) normalize_row(a, row, staged + row * a.k);
        });
    }
    const auto rank_parts = [](const Tile& tile) { return (tile.adapter->rank + kTileRanks - 1) / kTileRanks; };
    for_parts(tiles, num_tiles, a.k * kTileRanks, rank_parts, [&](const Tile& tile, int64_t part) {
        const int64_t first = part * kTileRanks, ranks = std::min(kTileRanks, tile.adapter->rank - first);
        with_elements(tile.adapter->down, tile.adapter->dtype, [&](auto* down) {
            multiply_down_tile(x + tile.first * x_stride, x_stride, tile.count, down + first * a.k, ranks, a.k,
                               products + tile.first * max_rank + first, max_rank);
        });
    });
    const auto output_parts = [](const Tile& tile) {
        int64_t parts = 0;
        for (int64_t i = 0; i < tile.adapter->num_segments; ++i)
            parts += (tile.adapter->segments[i].count + kOutputs - 1) / kOutputs;
        return parts;
    };
    for_parts(tiles, num_tiles, kOutputs * max_rank, output_parts, [&](const Tile& tile, int64_t part) {
        const auto* segment = tile.adapter->segments;
        for (int64_t parts; part >= (parts = (segment->count + kOutputs - 1) / kOutputs); ++segment) part -= parts;
        const int64_t first = part * kOutputs, last = std::min(first + kOutputs, segment->count);
        with_elements(tile.adapter->up, tile.adapter->dtype, [&](auto* up) {
            for (int64_t row = tile.first; row < tile.first + tile.count; ++row)
                add_outputs(products + row * max_rank + segment->first_rank, segment->rank, up + segment->up_start,
                            segment->count, segment->scale, first, last, a.out + row * a.out_stride + segment->first);
        });
    });
    return PARLOR_OK;
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
