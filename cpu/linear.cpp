// linear(): checks, rows made ready (linear_stage.cpp), row blocks shared out among the threads.
//
// A thread owns row blocks, never columns, so nothing is added across threads.
//   few rows (one tile)  every thread makes its own copy of the tile, which saves a barrier, and streams its row
//                        blocks
//   many rows            the tiles of a chunk of rows are made together; then, for a few row blocks at a time
//                        that stay in the cache, each tile is worked off
// An epilogue with silu takes a result from memory of the thread while that is in the cache; the kernels know but storing
// and adding.
#include "linear.h"

#include <atomic>
#include <new>

#include "thread_team.h"

namespace parlor {
namespace {

constexpr int64_t kMaxRows = int64_t{1} << 24;
constexpr int64_t kChunkRows = 256;      // rows staged at a time
constexpr int64_t kCachedRowBlocks = 2;  // row blocks that all tiles go over while they are in the cache
constexpr size_t kAlignment = 64;

#if PARLOR_BUILT_ISA >= 3
constexpr int kMatrixRows = 16;
#endif

// Where the parts of a staged tile lie within its memory.
struct TileLayout {
    int64_t codes, scales, offsets;  // bytes of one plane of codes, of the scales, of one plane's offsets

    TileLayout(const linear_weight& w, int64_t rows)
        : codes(aligned(rows * w.padded_k * (w.exact ? 4 : 1))),
          scales(w.exact ? 0 : aligned(rows * w.num_spans * 4)),
          offsets(w.exact ? 0 : aligned(rows * w.num_blocks * 4)) {}

    int64_t bytes() const { return 2 * codes + scales + 2 * offsets; }

    static int64_t aligned(int64_t bytes) {
        constexpr int64_t kUnit = kAlignment;
        return (bytes + kUnit - 1) / kUnit * kUnit;
    }

    Tile tile(char* memory, int rows) const {
        char* const factors = memory + 2 * codes;
        const auto floats = [&](int64_t offset) { return reinterpret_cast<float*>(factors + offset); };
        return {{memory, memory + codes}, floats(0), {floats(scales), floats(scales + offsets)}, rows};
    }
};

// Make a tile of `rows` rows in `memory`; those that x lacks are zeros.
Tile stage(const linear_weight& w, const Input& input, int rows, char* memory) {
    const TileLayout layout(w, rows);
    const Tile tile = layout.tile(memory, rows);
    if (w.exact) {
        PARLOR_PICK(stage_float)(w, input, rows, reinterpret_cast<float*>(memory));
    } else {
        int8_t* const plane = reinterpret_cast<int8_t*>(memory);
        int8_t* const planes[2] = {plane, plane + layout.codes};
        float* const scales = const_cast<float*>(tile.scales);
        float* const offsets[2] = {const_cast<float*>(tile.offsets[0]), const_cast<float*>(tile.offsets[1])};
        PARLOR_PICK(stage_int8)(w, input, rows, planes, scales, offsets);
    }
    return tile;
}

// At most `rows` rows from `row` on.
Input rows_from(Input input, int64_t row, int64_t rows) {
    input.x += row * input.stride;
    input.rows = input.rows - row < rows ? input.rows - row : rows;
    return input;
}

Output rows_from(Output output, int64_t row, int64_t rows) {
    output.out += row * output.stride;
    output.rows = static_cast<int>(output.rows - row < rows ? output.rows - row : rows);
    return output;
}

// This part's share of `count` row blocks.
struct Share {
    int64_t first, last;

    Share(int64_t count, int part, int num_parts)
        : first(count * part / num_parts), last(count * (part + 1) / num_parts) {}
};

// What becomes of the product, see PARLOR_EPILOGUE_*.
struct Epilogue {
    int kind;
    int64_t n;  // outputs of the weight

    int64_t columns() const { return kind == PARLOR_EPILOGUE_SILU_MUL ? n / 2 : n; }  // of out
    int64_t row_blocks() const { return (columns() + kLanes - 1) / kLanes; }          // of out
    bool is_direct() const { return kind == PARLOR_EPILOGUE_STORE || kind == PARLOR_EPILOGUE_ADD; }

    // Floats of a row of the products that `run` row blocks of out take: gate and up; the latter may begin within a
    // row block.
    int64_t width(int64_t run) const {
        return is_direct() ? 0 : kind == PARLOR_EPILOGUE_SILU_MUL ? (2 * run + 1) * kLanes : run * kLanes;
    }
    int64_t bytes(int64_t run, int64_t rows) const { return width(run) * rows * static_cast<int64_t>(sizeof(float)); }
};

// Row blocks [first, last) of out, `run` at a time. multiply(first, last, output) stores or adds the product's; `memory`
// has epilogue.bytes(run, output.rows).
template <class Multiply>
void multiply_runs(const Epilogue& epilogue, const Output& output, const Share& share, int64_t run, char* memory,
                   Multiply multiply) {
    const int64_t half = epilogue.columns(), width = epilogue.width(run);
    float* const products = reinterpret_cast<float*>(memory);
    const auto keep = [&](int64_t first, int64_t last, float* target) {
        multiply(first, last, Output{target - first * kLanes, width, output.rows, false});
    };
    for (int64_t first = share.first; first < share.last; first += run) {
        const int64_t last = first + run < share.last ? first + run : share.last;
        if (epilogue.is_direct()) {
            multiply(first, last, output);
            continue;
        }
        const int64_t column = first * kLanes;
        const int64_t count = (last * kLanes < half ? last * kLanes : half) - column;
        const float* up = products;
        keep(first, last, products);
        if (epilogue.kind == PARLOR_EPILOGUE_SILU_MUL) {
            const int64_t up_first = (half + column) / kLanes;
            keep(up_first, (half + column + count + kLanes - 1) / kLanes, products + run * kLanes);
            up = products + run * kLanes + (half + column) % kLanes;
        }
        for (int row = 0; row < output.rows; ++row) {
            float* const out = output.out + row * output.stride + column;
            const bool gate_is_out = epilogue.kind == PARLOR_EPILOGUE_GATE;
            PARLOR_PICK(silu_mul)(gate_is_out ? out : products + row * width, up + row * width, count, out);
        }
    }
}

// Memory of the calling thread alone, kept for the next call: unlike team().scratch() it needs no agreement.
char* own_memory(int64_t bytes) {
    struct Memory {
        char* start = nullptr;
        int64_t size = 0;

        ~Memory() { ::operator delete(start, std::align_val_t{kAlignment}); }
    };
    static thread_local Memory memory;
    if (memory.size < bytes) {
        ::operator delete(memory.start, std::align_val_t{kAlignment});
        memory.start = static_cast<char*>(::operator new(bytes, std::align_val_t{kAlignment}, std::nothrow));
        memory.size = memory.start ? bytes : 0;
    }
    return memory.start;
}

int quantized_few(const linear_weight& w, const LinearKernels& kernels, const Input& input, const Output& output,
                  const Epilogue& epilogue) {
    const int rows = kernels.tile_rows(static_cast<int>(input.rows));
    const int64_t bytes = TileLayout(w, rows).bytes();
    std::atomic<bool> failed{false};
    team().run([&](int part, int num_parts) {
        const Share share(epilogue.row_blocks(), part, num_parts);
        const int64_t run = share.last - share.first;
        if (run == 0) return;
        char* const memory = own_memory(bytes + epilogue.bytes(run, input.rows));
        if (!memory) {
            failed = true;
            return;
        }
        const Tile tile = stage(w, input, rows, memory);
        multiply_runs(epilogue, output, share, run, memory + bytes, [&](int64_t first, int64_t last, const Output& o) {
            (w.exact ? kernels.exact_rows : kernels.int8_rows)(w, tile, first, last, o);
        });
    });
    return failed ? PARLOR_ERROR_MEMORY : PARLOR_OK;
}

// `input` has at most kChunkRows rows. Tiles have kernels.max_rows rows each, the last one what is left.
int quantized_chunk(const linear_weight& w, const LinearKernels& kernels, const Input& input, const Output& output,
                    const Epilogue& epilogue) {
    const int64_t tile_rows = kernels.max_rows;
    const int64_t num_tiles = (input.rows + tile_rows - 1) / tile_rows;
    const int64_t bytes = TileLayout(w, tile_rows).bytes();
    const int64_t product_bytes = TileLayout::aligned(epilogue.bytes(kCachedRowBlocks, input.rows));
    char* const memory =
        static_cast<char*>(team().scratch(bytes * num_tiles + product_bytes * team().size()));
    if (!memory) return PARLOR_ERROR_MEMORY;
    const auto rows_of = [&](int64_t tile) { return rows_from(input, tile * tile_rows, tile_rows); };
    team().run([&](int part, int num_parts) {
        const Share tiles(num_tiles, part, num_parts);
        for (int64_t t = tiles.first; t < tiles.last; ++t)
            stage(w, rows_of(t), kernels.tile_rows(static_cast<int>(rows_of(t).rows)), memory + t * bytes);
        team().barrier();
        const Share share(epilogue.row_blocks(), part, num_parts);
        char* const products = memory + num_tiles * bytes + part * product_bytes;
        multiply_runs(epilogue, output, share, kCachedRowBlocks, products,
                      [&](int64_t first, int64_t last, const Output& o) {
            for (int64_t t = 0; t < num_tiles; ++t) {
                const int rows = kernels.tile_rows(static_cast<int>(rows_of(t).rows));
                const Tile tile = TileLayout(w, rows).tile(memory + t * bytes, rows);
                (w.exact ? kernels.exact_rows : kernels.int8_rows)(w, tile, first, last,
                                                                   rows_from(o, t * tile_rows, tile_rows));
            }
        });
    });
    return PARLOR_OK;
}

#if PARLOR_BUILT_ISA >= 3
// As quantized_chunk(), with tiles of 16 rows for the matrix unit.
int matrix_chunk(const linear_weight& w, const Input& input, const Output& output, const Epilogue& epilogue) {
    const int64_t num_tiles = (input.rows + kMatrixRows - 1) / kMatrixRows;
    const TileLayout layout(w, kMatrixRows);
    const int64_t tile_bytes = layout.bytes();
    const int64_t list_bytes = TileLayout::aligned(num_tiles * static_cast<int64_t>(sizeof(Tile)));
    const int64_t panel_bytes = TileLayout::aligned(amx::panel_bytes(num_tiles));
    const int64_t product_bytes = TileLayout::aligned(epilogue.bytes(amx::kPanelRowBlocks, input.rows));
    const int64_t own_bytes = list_bytes + panel_bytes + product_bytes;
    char* const memory = static_cast<char*>(team().scratch(tile_bytes * num_tiles + own_bytes * team().size()));
    if (!memory) return PARLOR_ERROR_MEMORY;
    team().run([&](int part, int num_parts) {
        const Share tiles(num_tiles, part, num_parts);
        for (int64_t t = tiles.first; t < tiles.last; ++t)
            stage(w, rows_from(input, t * kMatrixRows, kMatrixRows), kMatrixRows, memory + t * tile_bytes);
        char* const own = memory + tile_bytes * num_tiles + own_bytes * part;
        Tile* const list = reinterpret_cast<Tile*>(own);
        for (int64_t t = 0; t < num_tiles; ++t) list[t] = layout.tile(memory + t * tile_bytes, kMatrixRows);
        team().barrier();
        const Share share(epilogue.row_blocks(), part, num_parts);
        multiply_runs(epilogue, output, share, amx::kPanelRowBlocks, own + list_bytes + panel_bytes,
                      [&](int64_t first, int64_t last, const Output& o) {
                          amx::int8_many(w, list, num_tiles, first, last, o, own + list_bytes);
                      });
    });
    return PARLOR_OK;
}
#endif

int quantized(const linear_weight& w, const LinearKernels& kernels, const Input& input, const Output& output,
              const Epilogue& epilogue) {
    if (input.rows <= kernels.max_rows) return quantized_few(w, kernels, input, output, epilogue);
    for (int64_t row = 0; row < input.rows; row += kChunkRows) {
        const Input chunk = rows_from(input, row, kChunkRows);
        const Output chunk_output = rows_from(output, row, kChunkRows);
        int error;
#if PARLOR_BUILT_ISA >= 3
        if (!w.exact && selected_isa() >= Isa::kAmx)
            error = matrix_chunk(w, chunk, chunk_output, epilogue);
        else
#endif
            error = quantized_chunk(w, kernels, chunk, chunk_output, epilogue);
        if (error) return error;
    }
    return PARLOR_OK;
}

// `input` has at most kChunkRows rows.
int dense_chunk(const linear_weight& w, const LinearKernels& kernels, const Input& input, const Output& output,
                const Epilogue& epilogue) {
    const bool is_few = input.rows <= kernels.max_rows;
    const int64_t longest_share = epilogue.row_blocks() / team().size() + 1;
    const int64_t run = is_few ? longest_share : kCachedRowBlocks;
    const int64_t normed_bytes = input.norm ? TileLayout::aligned(input.rows * w.k * 4) : 0;
    const int64_t product_bytes = TileLayout::aligned(epilogue.bytes(run, input.rows));
    char* const memory = static_cast<char*>(team().scratch(normed_bytes + product_bytes * team().size()));
    if (!memory) return PARLOR_ERROR_MEMORY;
    Input rows = input;
    if (input.norm) rows.x = reinterpret_cast<float*>(memory), rows.stride = w.k;
    team().run([&](int part, int num_parts) {
        if (input.norm) {
            const Share own(input.rows, part, num_parts);
            PARLOR_PICK(normalize_rows)(w, rows_from(input, own.first, own.last - own.first),
                                        reinterpret_cast<float*>(memory) + own.first * w.k);
            team().barrier();
        }
        const Share share(epilogue.row_blocks(), part, num_parts);
        multiply_runs(epilogue, output, share, run, memory + normed_bytes + part * product_bytes,
                      [&](int64_t first, int64_t last, const Output& o) {
            for (int64_t row = 0; row < rows.rows; row += kernels.max_rows) {
                const Input tile = rows_from(rows, row, kernels.max_rows);
                kernels.dense_rows(w, tile.x, tile.stride, first, last, rows_from(o, row, kernels.max_rows));
            }
        });
    });
    return PARLOR_OK;
}

int dense(const linear_weight& w, const LinearKernels& kernels, const Input& input, const Output& output,
          const Epilogue& epilogue) {
    for (int64_t row = 0; row < input.rows; row += kChunkRows) {
        const Output chunk = rows_from(output, row, kChunkRows);
        if (const int error = dense_chunk(w, kernels, rows_from(input, row, kChunkRows), chunk, epilogue))
            return error;
    }
    return PARLOR_OK;
}

int check(const float* x, int64_t x_stride, int64_t m, const linear_weight* w, const float* out, int64_t out_stride,
          int epilogue) {
    if (!w || !w->codes) return PARLOR_ERROR_POINTER;
    if (epilogue < PARLOR_EPILOGUE_STORE || epilogue > PARLOR_EPILOGUE_GATE) return PARLOR_ERROR_VALUE;
    if (epilogue == PARLOR_EPILOGUE_SILU_MUL && w->n % 2 != 0) return PARLOR_ERROR_SIZE;
    const int64_t columns = Epilogue{epilogue, w->n}.columns();
    if (m < 0 || m > kMaxRows || (m > 1 && (x_stride < w->k || out_stride < columns))) return PARLOR_ERROR_SIZE;
    return m == 0 || (x && out) ? PARLOR_OK : PARLOR_ERROR_POINTER;
}

}  // namespace
}  // namespace parlor

extern "C" int linear(const float* x, int64_t x_stride, int64_t m, const float* norm_weight, float eps,
                      const linear_weight* weight, float* out, int64_t out_stride, int epilogue, void*) {
    using namespace parlor;
    if (const int error = check(x, x_stride, m, weight, out, out_stride, epilogue)) return error;
    if (m == 0) return PARLOR_OK;
    const LinearKernels kernels = PARLOR_PICK(linear_kernels)();
    const Input input{x, x_stride, m, norm_weight, eps};
    const Output output{out, out_stride, static_cast<int>(m), epilogue == PARLOR_EPILOGUE_ADD};
    return (is_quantized(*weight) ? quantized : dense)(*weight, kernels, input, output, {epilogue, weight->n});
}
