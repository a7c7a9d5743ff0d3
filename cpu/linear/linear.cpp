// linear(): checks, rows made ready (stage.cpp), row blocks shared out among the threads.
//
// Threads take row blocks, never columns, so nothing is added across threads.
//   few rows (one tile)  every thread makes its own copy of the tile, so that none waits for another, and streams
//                        row blocks
//   many rows            the tiles of a chunk of rows are made together; then, for a few row blocks at a time
//                        that stay in the cache, each tile is worked off
//   rows of prompts      as many rows, with AMX: prompt_amx.cpp
// An epilogue with silu takes a result from memory of the thread while that is in the cache; the kernels know but storing
// and adding.
#include "linear.h"

#include <algorithm>
#include <atomic>

#include "groups.h"
#include "product.h"
#include "prompt.h"
#include "thread_team.h"

namespace parlor {
namespace {

constexpr int64_t kMaxRows = int64_t{1} << 24;
constexpr int64_t kChunkRows = 256;        // rows staged at a time
constexpr int64_t kStreamedRowBlocks = 8;  // that a thread takes at least of few rows: the streams are to be long
constexpr int64_t kLeastTileRows = 5;      // that AMX's tiles are better for: see few_amx.cpp
constexpr int64_t kLeastGroupRows = 9;     // the same of groups: see few_groups_amx.cpp
constexpr int64_t kCachedRowBlocks = 2;    // row blocks that all tiles go over while they are in the cache
constexpr size_t kAlignment = 64;

// Where the parts of a staged tile lie within its memory.
struct TileLayout {
    int64_t codes, scales, offsets;  // bytes of one plane of codes (int16: of half of them), and of the rest

    TileLayout(const linear_weight& w, int64_t rows)
        : codes(aligned(rows * w.padded_k * (w.exact ? 4 : 1))),
          scales(w.exact ? 0 : aligned(rows * w.num_spans * 4)),
          offsets(w.exact ? 0 : aligned(rows * w.num_blocks * 4)) {}

    int64_t bytes() const { return 2 * codes + scales + offsets; }

    static int64_t aligned(int64_t bytes) {
        constexpr int64_t kUnit = kAlignment;
        return (bytes + kUnit - 1) / kUnit * kUnit;
    }
};

// Make a tile of `rows` rows in `memory`, rounded as `own_way` does it if it is not null; rows that x lacks are zeros.
Tile stage(const linear_weight& w, const Input& input, int rows, char* memory, Staging* own_way) {
    const TileLayout layout(w, rows);
    void* const codes[2] = {memory, memory + layout.codes};
    float* const scales = reinterpret_cast<float*>(memory + 2 * layout.codes);
    float* const offsets = scales + layout.scales / 4;
    if (w.exact) PARLOR_PICK(stage_float)(w, input, rows, reinterpret_cast<float*>(memory));
    else if (own_way) own_way(w, input, rows, codes, scales, offsets);
#if PARLOR_BUILT_I8MM
    else if (selected_isa() == Isa::kI8mm) i8mm::stage_rounded(w, input, rows, codes, scales, offsets);
#endif
#if PARLOR_BUILT_DOTPROD
    else if (selected_isa() == Isa::kDotprod) dotprod::stage_rounded(w, input, rows, codes, scales, offsets);
#endif
    else PARLOR_PICK(stage_rounded)(w, input, rows, codes, scales, offsets);
    return {{codes[0], codes[1]}, scales, offsets, rows, 0, input.rows};
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

// What becomes of the product, see PARLOR_EPILOGUE_*, and which row blocks of out are wanted.
struct Epilogue {
    int kind;
    int64_t n;  // outputs of the weight
    int64_t first, last;

    Epilogue(int kind, int64_t n) : kind(kind), n(n), first(0), last(row_blocks()) {}

    int64_t wanted() const { return last - first; }
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

// Row blocks [begin, end) of those of out that are wanted, `run` at a time. multiply(first, last, output) stores or adds the product's; `memory`
// has epilogue.bytes(run, output.rows).
template <class Multiply>
void multiply_runs(const Epilogue& epilogue, const Output& output, int64_t begin, int64_t end, int64_t run, char* memory,
                   Multiply multiply) {
    const int64_t half = epilogue.columns(), width = epilogue.width(run);
    float* const products = reinterpret_cast<float*>(memory);
    const auto keep = [&](int64_t first, int64_t last, float* target) {
        multiply(first, last, Output{target - first * kLanes, width, output.rows, false});
    };
    for (int64_t first = epilogue.first + begin; first < epilogue.first + end; first += run) {
        const int64_t last = first + run < epilogue.first + end ? first + run : epilogue.first + end;
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

int quantized_few(const linear_weight& w, const LinearKernels& kernels, const Input& input, const Output& output,
                  const Epilogue& epilogue) {
    const int rows = kernels.tile_rows(static_cast<int>(input.rows));
    const int64_t bytes = TileLayout(w, rows).bytes();
    std::atomic<bool> failed{false};
    Work work(epilogue.wanted(), kStreamedRowBlocks, team().size());
    team().run([&](int) {
        int64_t begin, end;
        if (!work.take(&begin, &end)) return;
        char* const memory =
            static_cast<char*>(team().scratch(bytes + epilogue.bytes(work.largest(), input.rows)));
        if (!memory) {
            failed = true;
            return;
        }
        const Tile tile = stage(w, input, rows, memory, kernels.stage);
        do {
            multiply_runs(epilogue, output, begin, end, end - begin, memory + bytes,
                          [&](int64_t first, int64_t last, const Output& o) {
                              (w.exact ? kernels.exact_rows : kernels.rounded_rows)(w, tile, first, last, o);
                          });
        } while (work.take(&begin, &end));
    });
    return failed ? PARLOR_ERROR_MEMORY : PARLOR_OK;
}

// Tiles of a chunk of rows. Kernels for many rows take any number of them: then tiles are about equally large.
struct Tiling {
    int64_t rows, count, tile_rows;

    Tiling(int64_t num_rows, const ManyRowKernels& many)
        : rows(num_rows), count((num_rows + many.max_rows - 1) / many.max_rows),
          tile_rows(many.quantized ? (num_rows + count - 1) / count : many.max_rows) {}

    int64_t first(int64_t tile) const { return tile * tile_rows < rows ? tile * tile_rows : rows; }
    int64_t filled(int64_t tile) const { return first(tile + 1) - first(tile); }
};

// Kernels for many rows where there are any, else those for few rows, tile by tile.
ManyRowKernels many_rows(const linear_weight& w, const LinearKernels& few) {
#if PARLOR_BUILT_AMX
    if (selected_isa() >= Isa::kAmx && is_quantized(w) && !is_grouped(w) && !w.exact) return amx::many_row_kernels();
#endif
    const bool is_rounded = is_quantized(w) && !w.exact;
#if PARLOR_BUILT_AVX512
    // Of codes of 8 bits: those of 4 are unpacked to bytes for each tile in less time than to panels, and multiplied as fast.
    if (selected_isa() == Isa::kAvx512 && is_rounded && w.kind == PARLOR_LINEAR_Q8) return avx512::rounded_panels();
#endif
#if PARLOR_BUILT_AVX_VNNI
    if (selected_isa() == Isa::kAvxVnni && is_rounded) return avx_vnni::rounded_panels();
    if (selected_isa() == Isa::kAvxVnni && !is_grouped(w)) return avx_vnni::many_row_kernels();
#endif
#if PARLOR_BUILT_AVX2
    if (selected_isa() == Isa::kAvx2 && is_rounded) return avx2::rounded_panels();
    if (selected_isa() == Isa::kAvx2 && !is_grouped(w)) return avx2::many_row_kernels();
#endif
    (void)is_rounded;
    return {few.max_rows, few.tile_rows, kCachedRowBlocks, [](int64_t) { return int64_t{0}; }, nullptr, nullptr, nullptr};
}

// `input` has at most kChunkRows rows.
int quantized_chunk(const linear_weight& w, const LinearKernels& few, const Input& input, const Output& output,
                    const Epilogue& epilogue) {
    const ManyRowKernels many = many_rows(w, few);
    const Tiling tiling(input.rows, many);
    const int64_t tile_bytes = TileLayout(w, many.max_rows).bytes();
    const int64_t list_bytes = TileLayout::aligned(tiling.count * static_cast<int64_t>(sizeof(Tile)));
    const int64_t product_bytes = TileLayout::aligned(epilogue.bytes(many.row_blocks, input.rows));
    const int64_t own_bytes = product_bytes + TileLayout::aligned(many.bytes(input.rows));
    char* const tile_memory = static_cast<char*>(
        team().scratch(tile_bytes * tiling.count + list_bytes + own_bytes * team().size()));
    if (!tile_memory) return PARLOR_ERROR_MEMORY;
    Tile* const tiles = reinterpret_cast<Tile*>(tile_memory + tile_bytes * tiling.count);
    team().parallel_for(tiling.count, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
            const Input rows = rows_from(input, tiling.first(t), tiling.filled(t));
            tiles[t] = stage(w, rows, many.tile_rows(static_cast<int>(rows.rows)), tile_memory + t * tile_bytes,
                             many.stage);
            tiles[t].first_row = tiling.first(t);
        }
    });
    const auto multiply_blocks = [&](int64_t begin, int64_t end, int part) {
        char* const products = reinterpret_cast<char*>(tiles) + list_bytes + own_bytes * part;
        const auto multiply = [&](int64_t first, int64_t last, const Output& o) {
            if (many.quantized)
                return many.quantized(w, tiles, tiling.count, first, last, o, products + product_bytes);
            const auto multiply_tile = w.exact ? few.exact_rows : few.rounded_rows;
            for (int64_t t = 0; t < tiling.count; ++t)
                multiply_tile(w, tiles[t], first, last, rows_from(o, tiles[t].first_row, tiles[t].filled));
        };
        multiply_runs(epilogue, output, begin, end, many.row_blocks, products, multiply);
    };
    team().parallel_for(epilogue.wanted(), multiply_blocks, many.row_blocks);
    return PARLOR_OK;
}

// Call chunk(input, output) for at most kChunkRows rows at a time.
template <class Chunk>
int by_chunks(const Input& input, const Output& output, Chunk chunk) {
    for (int64_t row = 0; row < input.rows; row += kChunkRows) {
        if (const int error = chunk(rows_from(input, row, kChunkRows), rows_from(output, row, kChunkRows)))
            return error;
    }
    return PARLOR_OK;
}

int quantized(const linear_weight& w, const LinearKernels& few, const Input& input, const Output& output,
              const Epilogue& epilogue) {
    if (input.rows <= few.max_rows) return quantized_few(w, few, input, output, epilogue);
    return by_chunks(input, output,
                     [&](const Input& i, const Output& o) { return quantized_chunk(w, few, i, o, epilogue); });
}

// `input` has at most kChunkRows rows.
int dense_chunk(const linear_weight& w, const LinearKernels& few, const Input& input, const Output& output,
                const Epilogue& epilogue) {
    const bool is_few = input.rows <= few.max_rows;
    const ManyRowKernels many = many_rows(w, few);
    Work work(epilogue.wanted(), is_few ? kStreamedRowBlocks : many.row_blocks, team().size());
    const int64_t run = is_few ? work.largest() : many.row_blocks;
    const int64_t normed_bytes = input.norm ? TileLayout::aligned(input.rows * w.k * 4) : 0;
    const int64_t product_bytes = TileLayout::aligned(epilogue.bytes(run, input.rows));
    const int64_t own_bytes = product_bytes + TileLayout::aligned(many.bytes(input.rows));
    char* const memory = static_cast<char*>(team().scratch(normed_bytes + own_bytes * team().size()));
    if (!memory) return PARLOR_ERROR_MEMORY;
    float* const normed = reinterpret_cast<float*>(memory);
    const Input rows = input.norm ? Input{normed, w.k, input.rows, nullptr, 0.0f} : input;
    if (input.norm) {
        team().parallel_for(input.rows, [&](int64_t begin, int64_t end, int) {
            PARLOR_PICK(normalize_rows)(w, rows_from(input, begin, end - begin), normed + begin * w.k);
        });
    }
    team().run([&](int part) {
        char* const products = memory + normed_bytes + own_bytes * part;
        const auto multiply = [&](int64_t first, int64_t last, const Output& o) {
            if (!is_few && many.dense) return many.dense(w, rows, first, last, o, products + product_bytes);
            for (int64_t row = 0; row < rows.rows; row += few.max_rows)
                few.dense_rows(w, rows.x + row * rows.stride, rows.stride, first, last,
                               rows_from(o, row, few.max_rows));
        };
        for (int64_t begin, end; work.take(&begin, &end);)
            multiply_runs(epilogue, output, begin, end, run, products, multiply);
    });
    return PARLOR_OK;
}

int dense(const linear_weight& w, const LinearKernels& few, const Input& input, const Output& output,
          const Epilogue& epilogue) {
    return by_chunks(input, output,
                     [&](const Input& i, const Output& o) { return dense_chunk(w, few, i, o, epilogue); });
}

#if PARLOR_BUILT_AMX
// Rows of x to `staged`.
void stage_prompts(const linear_weight& w, const Input& input, bool is_split, char* staged) {
    team().parallel_for((input.rows + kPromptPair - 1) / kPromptPair, [&](int64_t begin, int64_t end, int) {
        for (int64_t pair = begin; pair < end; ++pair) amx::prompt_stage(w, input, pair, is_split, staged);
    });
}

// Pairs of row tiles [first, last) of what is staged, to their rows of out.
void multiply_pairs(const linear_weight& w, const char* staged, bool is_split, int64_t first, int64_t last,
                    PromptOutput output, int64_t first_block, int64_t last_block, char* own) {
    const int64_t row = first * kPromptPair, rows = (last - first) * kPromptPair;
    output.rows = std::min(output.rows - row, rows);
    if (output.staged) output.staged = static_cast<char*>(output.staged) + amx::prompt_staged_bytes(*output.next, row, false);
    else output.out += row * output.stride;
    amx::prompt_multiply(w, staged + amx::prompt_staged_bytes(w, row, is_split), is_split, first_block, last_block, output,
                         own);
}

// Threads take panels of row blocks; those that are left when there is none for each thread are shared by rows as well.
// `own` has `own_bytes` for each thread.
void multiply_staged(const linear_weight& w, const char* staged, bool is_split, const PromptOutput& output,
                     const Epilogue& epilogue, char* own, int64_t own_bytes) {
    const int64_t run = amx::prompt_row_blocks(output.epilogue), threads = team().size();
    const int64_t panels = (epilogue.wanted() + run - 1) / run, left = panels % threads;
    const int64_t pairs = (output.rows + kPromptPair - 1) / kPromptPair;
    const int64_t shares = left > 0 ? std::min(threads / left, pairs) : 1;
    const int64_t whole = shares > 1 ? (panels - left) * run : epilogue.wanted();
    Work blocks(whole, run, team().size()), rest(shares > 1 ? left * shares : 0, 1, team().size());
    team().run([&](int part) {
        char* const memory = own + own_bytes * part;
        int64_t begin, end;
        while (blocks.take(&begin, &end))
            multiply_pairs(w, staged, is_split, 0, pairs, output, epilogue.first + begin, epilogue.first + end, memory);
        while (rest.take(&begin, &end))
            for (int64_t i = begin; i < end; ++i) {
                const int64_t first = epilogue.first + whole + i / shares * run, share = i % shares;
                multiply_pairs(w, staged, is_split, pairs * share / shares, pairs * (share + 1) / shares, output, first,
                               std::min(first + run, epilogue.last), memory);
            }
    });
}

// At most kPromptChunk rows.
int prompt_chunk(const linear_weight& w, const Input& input, bool is_split, const PromptOutput& output,
                 const Epilogue& epilogue) {
    const int64_t staged_bytes = amx::prompt_staged_bytes(w, input.rows, is_split);
    const int64_t own_bytes = amx::prompt_own_bytes(w, input.rows);
    char* const staged = static_cast<char*>(team().scratch(staged_bytes + own_bytes * team().size()));
    if (!staged) return PARLOR_ERROR_MEMORY;
    stage_prompts(w, input, is_split, staged);
    multiply_staged(w, staged, is_split, output, epilogue, staged + staged_bytes, own_bytes);
    return PARLOR_OK;
}

// out of `down` from what gate and up give, which is staged for it instead of written. At most kPromptChunk rows.
int prompt_mlp_chunk(const linear_weight& gate_up, const linear_weight& down, const Input& input,
                     const PromptOutput& output) {
    const int64_t staged_bytes = amx::prompt_staged_bytes(gate_up, input.rows, false);
    const int64_t inner_bytes = amx::prompt_staged_bytes(down, input.rows, false);
    const int64_t own_bytes =
        std::max(amx::prompt_own_bytes(gate_up, input.rows), amx::prompt_own_bytes(down, input.rows));
    char* const staged = static_cast<char*>(team().scratch(staged_bytes + inner_bytes + own_bytes * team().size()));
    if (!staged) return PARLOR_ERROR_MEMORY;
    char *const inner = staged + staged_bytes, *const own = inner + inner_bytes;
    const Epilogue expands(PARLOR_EPILOGUE_SILU_MUL, gate_up.n), reduces(output.epilogue, down.n);
    stage_prompts(gate_up, input, false, staged);
    multiply_staged(gate_up, staged, false, {nullptr, 0, input.rows, expands.kind, inner, &down}, expands, own, own_bytes);
    multiply_staged(down, inner, false, output, reduces, own, own_bytes);
    return PARLOR_OK;
}
#endif

LinearKernels few_rows(const linear_weight& w, int64_t rows) {
#if PARLOR_BUILT_AMX
    if (selected_isa() >= Isa::kAmx && is_quantized(w) && !w.exact) {
        if (!is_grouped(w) && rows >= kLeastTileRows) return amx::few_row_kernels();
        const bool has_tiles = is_grouped(w) && w.kind != PARLOR_LINEAR_W4 && w.group_size == kColumnUnit;
        if (has_tiles && rows >= kLeastGroupRows) return amx::few_group_kernels();
    }
#endif
#if PARLOR_BUILT_AVX2
    const bool has_avx2 = selected_isa() == Isa::kAvx2 || selected_isa() == Isa::kAvxVnni;
    if (has_avx2 && rows == 1 && is_grouped(w) && !has_table(w.kind)) return avx2::group_row_kernels();
    if (selected_isa() == Isa::kAvx2 && rows == 1 && w.kind == PARLOR_LINEAR_Q4 && !w.exact) return avx2::four_bit_row_kernels();
#endif
#if PARLOR_BUILT_AVX_VNNI
    if (selected_isa() == Isa::kAvxVnni) return is_grouped(w) ? avx_vnni::group_kernels() : avx_vnni::linear_kernels();
#endif
#if PARLOR_BUILT_I8MM
    if (selected_isa() == Isa::kI8mm) return is_grouped(w) ? i8mm::group_kernels() : i8mm::linear_kernels();
#endif
#if PARLOR_BUILT_DOTPROD
    if (selected_isa() == Isa::kDotprod) return is_grouped(w) ? dotprod::group_kernels() : dotprod::linear_kernels();
#endif
    (void)rows;
    return is_grouped(w) ? PARLOR_PICK(group_kernels)() : PARLOR_PICK(linear_kernels)();
}

int few_or_many(const Product& p, const Epilogue& epilogue) {
    const linear_weight& w = *p.weight;
    const LinearKernels kernels = few_rows(w, p.input.rows);
    const Output output{p.out, p.out_stride, static_cast<int>(p.input.rows), p.epilogue == PARLOR_EPILOGUE_ADD};
    return (is_quantized(w) ? quantized : dense)(w, kernels, p.input, output, epilogue);
}

#if PARLOR_BUILT_AMX
int by_prompt_chunks(const Product& p, bool is_split, const Epilogue& epilogue) {
    for (int64_t row = 0; row < p.input.rows; row += kPromptChunk) {
        const Input rows = rows_from(p.input, row, kPromptChunk);
        const PromptOutput output{p.out + row * p.out_stride, p.out_stride, rows.rows, p.epilogue};
        if (const int error = prompt_chunk(*p.weight, rows, is_split, output, epilogue)) return error;
    }
    return PARLOR_OK;
}

// The precise row blocks, then the others.
int multiply_prompts(const Product& p, const Epilogue& epilogue) {
    const int64_t blocks = p.epilogue == PARLOR_EPILOGUE_SILU_MUL && p.precise > 0 ? epilogue.row_blocks()
                                                                                   : (p.precise + kLanes - 1) / kLanes;
    Epilogue precise = epilogue, others = epilogue;
    precise.last = others.first = std::min(std::max(epilogue.first, blocks), epilogue.last);
    if (precise.wanted() > 0) {
        const bool is_split = amx::splits_prompts(*p.weight);
        if (const int error = is_split ? by_prompt_chunks(p, true, precise) : few_or_many(p, precise)) return error;
    }
    return others.wanted() > 0 ? by_prompt_chunks(p, false, others) : PARLOR_OK;
}
#endif

int multiply_wanted(const Product& p, const Epilogue& epilogue) {
#if PARLOR_BUILT_AMX
    if (p.of_prompts && selected_isa() >= Isa::kAmx && amx::takes_prompts(*p.weight, p.epilogue))
        return multiply_prompts(p, epilogue);
#endif
    return few_or_many(p, epilogue);
}

int check(const Product& p) {
    const linear_weight* const w = p.weight;
    const int64_t m = p.input.rows;
    if (!w || !w->codes) return PARLOR_ERROR_POINTER;
    if (p.epilogue < PARLOR_EPILOGUE_STORE || p.epilogue > PARLOR_EPILOGUE_GATE) return PARLOR_ERROR_VALUE;
    if (p.epilogue == PARLOR_EPILOGUE_SILU_MUL && w->n % 2 != 0) return PARLOR_ERROR_SIZE;
    const int64_t columns = Epilogue(p.epilogue, w->n).columns();
    if (m < 0 || m > kMaxRows || (m > 1 && (p.input.stride < w->k || p.out_stride < columns))) return PARLOR_ERROR_SIZE;
    return m == 0 || (p.input.x && p.out) ? PARLOR_OK : PARLOR_ERROR_POINTER;
}

int checked(const Product& p) {
    const int error = check(p);
    return error || p.input.rows == 0 ? error : multiply_wanted(p, Epilogue(p.epilogue, p.weight->n));
}

// What `first` writes is what `second` reads; on AMX it is handed over as the tiles want it where that can be.
int checked_pair(const Product& first, const Product& second) {
    for (const Product* p : {&first, &second})
        if (const int error = check(*p)) return error;
    if (second.weight->k != Epilogue(first.epilogue, first.weight->n).columns()) return PARLOR_ERROR_SIZE;
#if PARLOR_BUILT_AMX
    if (selected_isa() >= Isa::kAmx && amx::stages_prompts(*first.weight, *second.weight)) {
        for (int64_t row = 0; row < first.input.rows; row += kPromptChunk) {
            const Input rows = rows_from(first.input, row, kPromptChunk);
            const PromptOutput output{second.out + row * second.out_stride, second.out_stride, rows.rows, second.epilogue};
            if (const int error = prompt_mlp_chunk(*first.weight, *second.weight, rows, output)) return error;
        }
        return PARLOR_OK;
    }
#endif
    const int error = checked(first);
    return error ? error : checked(second);
}

}  // namespace

int64_t Product::row_blocks() const { return Epilogue(epilogue, weight->n).row_blocks(); }

int multiply(const Product& product, int64_t first, int64_t last) {
    Epilogue epilogue(product.epilogue, product.weight->n);
    epilogue.first = first;
    epilogue.last = last;
    return multiply_wanted(product, epilogue);
}

}  // namespace parlor

extern "C" int linear(const float* x, int64_t x_stride, int64_t m, const float* norm_weight, float eps,
                      const linear_weight* weight, float* out, int64_t out_stride, int epilogue, void*) {
    return parlor::checked({weight, {x, x_stride, m, norm_weight, eps}, out, out_stride, epilogue, false, 0});
}

extern "C" int prompt_linear(const float* x, int64_t x_stride, int64_t m, const float* norm_weight, float eps,
                             const linear_weight* weight, float* out, int64_t out_stride, int epilogue, int64_t precise,
                             void*) {
    if (precise < 0) return PARLOR_ERROR_SIZE;
    return parlor::checked({weight, {x, x_stride, m, norm_weight, eps}, out, out_stride, epilogue, true, precise});
}

extern "C" int prompt_mlp(const float* x, int64_t x_stride, int64_t m, const float* norm_weight, float eps,
                          const linear_weight* gate_up, float* inner, int64_t inner_stride, const linear_weight* down,
                          float* out, int64_t out_stride, int epilogue, void*) {
    return parlor::checked_pair(
        {gate_up, {x, x_stride, m, norm_weight, eps}, inner, inner_stride, PARLOR_EPILOGUE_SILU_MUL, true, 0},
        {down, {inner, inner_stride, m, nullptr, 0.0f}, out, out_stride, epilogue, true, 0});
}
