/* The C contract of every kernel library: cpu/ and cuda/ export the same functions.
 *
 * Raw pointers, 64-bit sizes and strides, a stream (null on the CPU) as the last argument. Each function
 * returns 0, or one of the error codes below and has then written nothing. Nothing here allocates device
 * memory, synchronizes or knows torch. So a GPU cannot report an index that lies outside its table: what depends on it
 * becomes NaN or is not written, and no memory outside is touched. The binding is model/kernels/binding.py, the
 * meaning of every operation is model/kernels/reference/operations.py.
 *
 * Notation: T tokens of a ragged batch, S sequences, D head_dim, Hq query heads, Hkv key/value heads,
 * P positions a page. All tensors are dense and row-major unless a stride (in elements) is an argument.
 */
#ifndef PARLOR_KERNELS_H
#define PARLOR_KERNELS_H

#include <stdint.h>

#if defined(_WIN32)
#define PARLOR_API __declspec(dllexport)
#else
#define PARLOR_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- error codes ------------------------------------------------------------------------------------ */
enum {
    PARLOR_OK = 0,
    PARLOR_ERROR_SIZE = 1,      /* a size, stride or count is negative, zero or too large */
    PARLOR_ERROR_POINTER = 2,   /* a pointer is null or not aligned as the function says */
    PARLOR_ERROR_DTYPE = 3,     /* a dtype code that this function does not take */
    PARLOR_ERROR_INDEX = 4,     /* a token id, position, slot or page lies outside its table */
    PARLOR_ERROR_ISA = 5,       /* this machine has no such instruction set */
    PARLOR_ERROR_MEMORY = 6,    /* scratch memory could not be allocated */
    PARLOR_ERROR_VALUE = 7,     /* another argument lies outside its range */
    PARLOR_ERROR_DRIVER = 35,   /* cudaErrorInsufficientDriver: CUDA library without a driver */
    PARLOR_ERROR_CUDA = 1000    /* this plus a cudaError_t: CUDA refused a launch */
};

/* ---- dtype codes ------------------------------------------------------------------------------------ */
enum { PARLOR_F32 = 0, PARLOR_F16 = 1, PARLOR_BF16 = 2, PARLOR_Q8 = 3, PARLOR_Q4 = 4 /* the last two: caches only */ };

/* ---- instruction sets, a processor's ascending; each includes those before it, but AVX-512 not AVX-VNNI - */
enum {
    PARLOR_ISA_PLAIN = 0,     /* whatever the compiler's baseline is; any machine */
    PARLOR_ISA_AVX2 = 1,      /* AVX2, FMA, F16C */
    PARLOR_ISA_AVX_VNNI = 2,  /* the former and AVX-VNNI: Intel's 12th generation on, which has no AVX-512 */
    PARLOR_ISA_AVX512 = 3,    /* AVX-512 F, BW, VL, DQ, VNNI */
    PARLOR_ISA_AMX = 4,       /* the former and AMX tile, int8, bf16, AVX-512 BF16; permission granted by the kernel */
    PARLOR_ISA_DOTPROD = 5,   /* of 64-bit ARM, whose baseline has NEON: dot products of bytes (ARMv8.2's sdot) */
    PARLOR_ISA_I8MM = 6       /* the former and products of 2 x 8 bytes with 8 x 2 (ARMv8.6's smmla): Apple's M2 on, Graviton3 */
};

/* ---- control ---------------------------------------------------------------------------------------- */
PARLOR_API const char* error_text(int code);   /* English, static */
PARLOR_API int supported_isas(void);           /* bit i set: PARLOR_ISA i can be forced here */
PARLOR_API int current_isa(void);              /* the set in use */
PARLOR_API int force_isa(int isa);             /* for tests: use this set from the next call on; -1 = best again */
PARLOR_API int set_threads(int num_threads);   /* size of the thread team, 1..256; the caller is one of them */
PARLOR_API int get_threads(void);

/* ---- rows ------------------------------------------------------------------------------------------------ */

/* out[t] = table[token_ids[t]] * scale as float32. */
PARLOR_API int embed(
    const void* table,         /* [vocab_size, hidden_size] of table_dtype */
    int table_dtype,           /* PARLOR_F32, _F16 or _BF16 */
    const int32_t* token_ids,  /* [num_tokens] */
    float* out,                /* [num_tokens, hidden_size] */
    float scale,
    int64_t num_tokens, int64_t vocab_size, int64_t hidden_size, void* stream);

enum {
    PARLOR_NORM_NONE = 0,   /* x */
    PARLOR_NORM_RMS = 1,    /* x / sqrt(mean(x^2) + eps) */
    PARLOR_NORM_LAYER = 2   /* the same of x - mean(x) */
};

/* y = norm(x) * weight + bias for each of a row's groups; out = y * scale, or out += y * scale. */
PARLOR_API int norm_rows(
    const float* x,        /* [num_rows, num_groups * size], rows x_stride apart */
    int64_t x_stride,
    const float* weight,   /* [size] for every group, or one of each (is_shared 0): [num_groups * size]; null: 1 */
    const float* bias,     /* as weight; null: 0 */
    int is_shared,
    float eps,
    int kind,              /* PARLOR_NORM_* */
    float* out,            /* [num_rows, num_groups * size], rows out_stride apart; may be x */
    int64_t out_stride,
    int add,               /* 1: += */
    float scale,
    int64_t num_rows, int64_t num_groups, int64_t size, void* stream);

enum {
    PARLOR_ACTIVATION_SILU = 0,       /* a / (1 + exp(-a)) */
    PARLOR_ACTIVATION_GELU = 1,       /* a / 2 * (1 + erf(a / sqrt(2))) */
    PARLOR_ACTIVATION_GELU_TANH = 2,  /* a / 2 * (1 + tanh(sqrt(2 / pi) * (a + 0.044715 * a^3))) */
    PARLOR_ACTIVATION_RELU2 = 3,      /* max(a, 0)^2 */
    PARLOR_ACTIVATION_RELU = 4,       /* max(a, 0) */
    PARLOR_ACTIVATION_CLAMPED = 5,    /* of gpt-oss: a / (1 + exp(-1.702 * a)), a at most 7; what it gates is kept within
                                         -7 and 7, plus 1 */
    PARLOR_ACTIVATION_SIGMOID = 6,    /* 1 / (1 + exp(-a)) */
    PARLOR_ACTIVATION_NONE = 7        /* a */
};

/* out = f(x), or f(x[:, :size]) * x[:, size:] where is_gated. */
PARLOR_API int activate(
    const float* x,        /* [num_rows, size], gated [num_rows, 2 * size]; rows x_stride apart */
    int64_t x_stride,
    float* out,            /* [num_rows, size], rows out_stride apart; may be x where nothing is gated */
    int64_t out_stride,
    int kind,              /* PARLOR_ACTIVATION_* */
    int is_gated,
    int64_t num_rows, int64_t size, void* stream);

/* out = x * f(gate). */
PARLOR_API int gate_rows(
    const float* x,        /* [num_rows, size], rows x_stride apart */
    int64_t x_stride,
    const float* gate,     /* [num_rows, size], rows gate_stride apart */
    int64_t gate_stride,
    float* out,            /* [num_rows, size], rows out_stride apart; may be x or gate */
    int64_t out_stride,
    int kind,              /* PARLOR_ACTIVATION_*, not _CLAMPED */
    int64_t num_rows, int64_t size, void* stream);

/* out = clamp(log(1 + exp(x + bias)), low, high) * scale. */
PARLOR_API int softplus_rows(
    const float* x,        /* [num_rows, size], rows x_stride apart */
    int64_t x_stride,
    const float* bias,     /* [size]; null: 0 */
    const float* scale,    /* [size]; null: 1 */
    float low, float high,
    float* out,            /* [num_rows, size], rows out_stride apart; may be x */
    int64_t out_stride,
    int64_t num_rows, int64_t size, void* stream);

/* xIELU of Apertus: out = x / 2 + above * x^2 where x > 0, x / 2 + below * (exp(x) - 1 - x) elsewhere. */
PARLOR_API int xielu_rows(
    const float* x,        /* [num_rows, size], rows x_stride apart */
    int64_t x_stride,
    float* out,            /* [num_rows, size], rows out_stride apart; may be x */
    int64_t out_stride,
    float above, float below,
    int64_t num_rows, int64_t size, void* stream);

/* x = max(0, x - mean(x) - deviations * deviation(x)): what is far above the others of its row, if they are
 * distributed normally. */
PARLOR_API int cut_rows(
    float* x,              /* [num_rows, size], rows x_stride apart */
    int64_t x_stride,
    float deviations,
    int64_t num_rows, int64_t size, void* stream);

/* x = x * sqrt(mean(like^2) / max(mean(x^2), eps)). */
PARLOR_API int match_rows(
    float* x,              /* [num_rows, size], rows x_stride apart */
    int64_t x_stride,
    const float* like,     /* [num_rows, size], rows like_stride apart */
    int64_t like_stride,
    float eps,             /* > 0 */
    int64_t num_rows, int64_t size, void* stream);

/* out[i] = sum over j of shares[i, j] * x[j], or out[i] += that: each row's inputs mixed in its own way. */
PARLOR_API int mix_rows(
    const float* x,        /* [num_rows, num_inputs * size], rows x_stride apart */
    int64_t x_stride,
    const float* shares,   /* [num_rows, num_outputs * num_inputs], rows shares_stride apart */
    int64_t shares_stride,
    float* out,            /* [num_rows, num_outputs * size], rows out_stride apart; none of x */
    int64_t out_stride,
    int add,               /* 1: += */
    int64_t num_rows, int64_t num_inputs, int64_t num_outputs, int64_t size, void* stream);

/* x = x * scale, or cap * tanh(x * scale / cap) where cap > 0. */
PARLOR_API int cap_rows(
    float* x,              /* [num_rows, size], rows x_stride apart */
    int64_t x_stride,
    float scale, float cap,
    int64_t num_rows, int64_t size, void* stream);

/* Rotate heads in place, as rope_write_kv does. */
PARLOR_API int rotate_heads(
    float* x,                     /* [num_tokens, num_heads * head_dim], rows x_stride apart */
    int64_t x_stride,
    const float* cos_table,       /* [max_positions, rotary_dim / 2] */
    const float* sin_table,
    int64_t max_positions,
    const int32_t* positions,     /* [num_tokens] */
    int is_interleaved,
    int64_t num_tokens, int64_t num_heads, int64_t head_dim, int64_t rotary_dim, void* stream);

/* ---- cache ------------------------------------------------------------------------------------------- */

/* A page holds, for each key head, a block of P keys; the value cache has as many blocks of P values.
 *
 *   PARLOR_F32, _F16    keys    [D, P]: transposed, so that neighbouring lanes have neighbouring keys
 *                       values  [P, D]
 *   PARLOR_Q8, _Q4      32-bit words, then float16 scales; c = 4 or 8 codes a word, the first in the lowest bits
 *                       keys    words [D / c, P]: word (i, j) is dimensions c * i .. c * i + c - 1 of key j
 *                       values  words [P / c, D]: word (i, d) is dimension d of values c * i .. c * i + c - 1
 *                       both    scales [G, P] right behind the words; G = ceil(D / 32) groups of a head's dimensions
 *
 * Either way a vector or a warp that reads consecutive words has consecutive keys (of keys) or dimensions (of values)
 * in its lanes, and the codes of a lane's word go into one sum: products of 4 bytes, or of pairs taken by
 * word & 0x000F000F, 0x00F000F0 ...
 * Bytes of a block: P * (D * bits / 8 + 2 * G); 1.0625 and 0.5625 a number where 32 divides D.
 *
 * Meaning of the quantized kinds: a head x[D] is multiplied by the normalized Hadamard matrix, in blocks of the
 * largest power of two that divides D (for step = 1, 2, 4 ...: x[i], x[i + step] = their sum, their difference; at
 * last times 1 / sqrt(block)). For each group: largest = max |x|, and with r = 1 / scale in float32 (0 for scale 0)
 *   _Q8   scale = half(largest / 127)   code = round_to_even(x * r), -127 .. 127     value = code * scale
 *   _Q4   scale = half(largest / 8)     code = floor(x * r) + 8, clamped to 0 .. 15  value = (code - 7.5) * scale
 * A word of values is shared by 4 or 8 tokens: writers of one page must not overwrite each other's codes. Codes and
 * scales behind the end of a sequence are undefined, so they may be anything but must not reach a result.
 *
 * In each of the following functions v_cache may be null: the values are the keys as they are kept, and there are no others. */

/* Rotate the queries in place: element i of the first rotary_dim with i + rotary_dim / 2, or neighbours with each
 * other; then times their position's query_scale. Rotated keys and plain values go to the cache.
 * For PARLOR_Q8 and _Q4 queries, keys and values are then multiplied by the Hadamard matrix, the queries in place. */
PARLOR_API int rope_write_kv(
    float* qkv,                   /* [num_tokens, (num_heads + 2 * num_kv_heads) * head_dim], rows qkv_stride apart; without
                                     the values where v_cache is null */
    int64_t qkv_stride,
    const float* cos_table,       /* [max_positions, rotary_dim / 2]; null: nothing is rotated */
    const float* sin_table,       /* as cos_table */
    const float* query_scale,     /* [max_positions] or null */
    int64_t max_positions,
    const int32_t* positions,     /* [num_tokens] */
    const int64_t* slot_mapping,  /* [num_tokens] page * page_size + offset; negative: not written */
    void* k_cache,                /* [num_pages, num_kv_heads, block of keys] */
    void* v_cache,                /* [num_pages, num_kv_heads, block of values] or null */
    int cache_dtype,              /* PARLOR_F32, _F16, _Q8 or _Q4 */
    int64_t num_pages, int64_t page_size,
    int64_t num_tokens, int64_t num_heads, int64_t num_kv_heads,
    int64_t head_dim,             /* even, at most 1,024; _Q8, _Q4: 8 divides it and page_size, at most 512 */
    int64_t rotary_dim,           /* even, at most head_dim */
    int is_interleaved,           /* 1: pairs are neighbours */
    void* stream);

/* Causal attention of a ragged batch over the paged cache. Query row i of sequence s stands at position
 * seq_lens[s] - (cu_seqlens[s + 1] - cu_seqlens[s]) + i and sees the keys up to its own position. Of PARLOR_Q8 and _Q4
 * the queries come as rope_write_kv leaves them, times the Hadamard matrix; out is multiplied by it once more, so that
 * it is what the other kinds give. Scores: score = scale * q . k, or softcap * tanh(score / softcap). */
PARLOR_API int paged_attention(
    const float* q,              /* [num_tokens, num_heads * head_dim], rows q_stride apart */
    int64_t q_stride,
    const void* k_cache,         /* [num_pages, num_kv_heads, block of keys] */
    const void* v_cache,         /* [num_pages, num_kv_heads, block of values] or null */
    int cache_dtype,             /* PARLOR_F32, _F16, _Q8 or _Q4 */
    int64_t num_pages, int64_t page_size,
    const int32_t* block_table,  /* [num_sequences, max_pages], rows block_table_stride apart */
    int64_t block_table_stride, int64_t max_pages,
    const int32_t* cu_seqlens,   /* [num_sequences + 1] first query row of each sequence; the last is num_tokens */
    const int32_t* seq_lens,     /* [num_sequences] keys of each sequence, this step's included */
    float* out,                  /* [num_tokens, num_heads * head_dim] */
    int64_t num_sequences, int64_t num_tokens,
    int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, float scale,
    int64_t window,              /* the last keys that a row sees, its own position's included; 0: all; negative: those of
                                    its position's chunk, which begins at a multiple of -window */
    float softcap,               /* 0: none */
    const float* sinks,          /* [num_heads] one score more in each row's softmax, of a value of zero; or null */
    void* stream);

/* The same for the tokens of one prompt, on the CPU alone: with AMX by products of bfloat16, whose errors are 1e-5 of a result.
 * A row's result still depends on its query and the keys that it sees, but need not be what paged_attention() gives. */
PARLOR_API int prompt_attention(
    const float* q,            /* [T, Hq * D], the last T of the sequence's tokens, rows q_stride apart */
    int64_t q_stride, const void* k_cache, const void* v_cache, int cache_dtype, int64_t num_pages, int64_t page_size,
    const int32_t* pages,      /* [max_pages] of the sequence */
    int64_t max_pages, int64_t num_keys,
    float* out,                /* [T, Hq * D] */
    int64_t num_tokens, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, float scale,
    int64_t window, float softcap, const float* sinks, void* stream);

/* Copy page src[i] to page dst[i] in both caches; no page of dst may be in src or twice in dst. */
PARLOR_API int copy_pages(
    void* k_cache,        /* [num_pages, page_bytes] */
    void* v_cache,        /* [num_pages, page_bytes] or null */
    int64_t num_pages, int64_t page_bytes,
    const int32_t* src,   /* [count] */
    const int32_t* dst,   /* [count] */
    int64_t count, void* stream);

/* ---- layers with a state ------------------------------------------------------------------------------- */

/* Of each of the following functions: a sequence's state lies in a slot, which its rows change one after the other.
 *
 *    float* states              [num_slots, ...], slots slot_stride apart, each dense
 *    const int32_t* slots       [num_sequences] no two the same; negative: padding, of which nothing is read or written
 *    const int32_t* cu_seqlens  [num_sequences + 1] first row of each sequence; the last is num_rows
 *    const int32_t* seq_lens    [num_sequences] tokens of each sequence, this step's included. Where there are no others
 *                               the state begins as zeros, whatever is in the slot
 *    const int32_t* row_slots   [num_rows] or null: the state after a row goes to this slot, too, unless it is negative;
 *                               no sequence's slot, and no slot twice
 *
 * A GPU passes over sequences and rows whose slots lie outside the table. */

/* out[t] = f(bias + sum over j < size of weight[j] * x[t - (size - 1) + j]), channel by channel. */
PARLOR_API int short_conv(
    const float* x,       /* [num_rows, channels], rows x_stride apart */
    int64_t x_stride,
    const float* weight,  /* [size, channels] */
    const float* bias,    /* [channels] or null */
    float* out,           /* [num_rows, channels], rows out_stride apart; may be x */
    int64_t out_stride,
    int activation,       /* PARLOR_ACTIVATION_NONE or _SILU */
    float* states,        /* a slot: [size - 1, channels] the last inputs, the newest last */
    int64_t slot_stride, int64_t num_slots,
    const int32_t* slots, const int32_t* cu_seqlens, const int32_t* seq_lens, const int32_t* row_slots,
    int64_t num_sequences, int64_t num_rows,
    int64_t size,         /* 2 .. 16 */
    int64_t channels, void* stream);

/* The gated delta rule for each value head, with q and k made unit vectors, and q times key_dim^-0.5:
 * S = exp(log_decay) * S;  S += k (x) (beta * (v - S^T k));  out = S^T q. Value head h uses key head
 * h / (num_heads / num_key_heads), or h % num_key_heads. A head decays as a whole, or each row of S by itself. */
PARLOR_API int gated_delta(
    const float* q,          /* [num_rows, num_key_heads * key_dim], rows q_stride apart */
    int64_t q_stride,
    const float* k,          /* the same */
    int64_t k_stride,
    const float* v,          /* [num_rows, num_heads * value_dim] */
    int64_t v_stride,
    const float* log_decay,  /* [num_rows, num_heads * decay_dim] */
    int64_t log_decay_stride,
    int64_t decay_dim,       /* 1 or key_dim */
    const float* beta,       /* [num_rows, num_heads] */
    int64_t beta_stride,
    float* out,              /* [num_rows, num_heads * value_dim]; may be v */
    int64_t out_stride,
    float* states,           /* a slot: [num_heads, key_dim, value_dim] */
    int64_t slot_stride, int64_t num_slots,
    const int32_t* slots, const int32_t* cu_seqlens, const int32_t* seq_lens, const int32_t* row_slots,
    int64_t num_sequences, int64_t num_rows, int64_t num_key_heads, int64_t num_heads,
    int is_tiled,            /* 1: % */
    int64_t key_dim,         /* at most 256 */
    int64_t value_dim, void* stream);

/* Mamba 2 for each head: S = exp(dt * a) * S + b (x) (dt * x);  out = S^T c + d * x. Head h uses group
 * h / (num_heads / num_groups). */
PARLOR_API int mamba2(
    const float* x,   /* [num_rows, num_heads * head_dim], rows x_stride apart */
    int64_t x_stride,
    const float* b,   /* [num_rows, num_groups * state_size] */
    int64_t b_stride,
    const float* c,   /* the same */
    int64_t c_stride,
    const float* dt,  /* [num_rows, num_heads] */
    int64_t dt_stride,
    const float* a,   /* [num_heads] */
    const float* d,   /* [num_heads] or null */
    float* out,       /* [num_rows, num_heads * head_dim]; may be x */
    int64_t out_stride,
    float* states,    /* a slot: [num_heads, state_size, head_dim] */
    int64_t slot_stride, int64_t num_slots,
    const int32_t* slots, const int32_t* cu_seqlens, const int32_t* seq_lens, const int32_t* row_slots,
    int64_t num_sequences, int64_t num_rows, int64_t num_groups, int64_t num_heads,
    int64_t state_size,  /* at most 256 */
    int64_t head_dim, void* stream);

/* ---- sampling (structs and all they point to lie where the library computes) ---------------------------- */

/* What may be done on the way from logits to a token. The first two act on logits and stand before the others. */
enum { PARLOR_STAGE_PENALTIES = 1, PARLOR_STAGE_DRY = 2, PARLOR_STAGE_TOP_N_SIGMA = 3, PARLOR_STAGE_TEMPERATURE = 4,
       PARLOR_STAGE_TOP_K = 5, PARLOR_STAGE_TOP_P = 6, PARLOR_STAGE_MIN_P = 7, PARLOR_STAGE_TYPICAL_P = 8,
       PARLOR_STAGE_XTC = 9, PARLOR_STAGE_MIROSTAT = 10 };

/* One sequence; the meaning of each field is at sample() in model/kernels/reference/sampling.py. */
typedef struct {
    const int32_t* history;      /* [num_tokens] prompt and reply; ids at or above vocab_size are passed over */
    int64_t num_tokens;
    int64_t prompt_length;       /* 0 .. num_tokens */
    const int32_t* bias_ids;     /* [num_biases] ascending */
    const float* bias_values;    /* [num_biases]; -inf bans a token */
    int64_t num_biases;
    const int32_t* eos_ids;      /* [num_eos_ids] */
    int64_t num_eos_ids;
    int64_t min_new_tokens;
    uint64_t seed;
    double repetition_penalty, presence_penalty, frequency_penalty;
    double temperature, top_p, min_p, typical_p;
    int64_t repetition_range, repetition_decay, top_k;
    const uint32_t* allowed;     /* [(vocab_size + 31) / 32] bit i % 32 of word i / 32: token i may be chosen; null: all */
    uint64_t stages;             /* PARLOR_STAGE_* in their order, 4 bits each, the first in the lowest */
    double top_n_sigma, dynatemp_range, dynatemp_exponent, xtc_probability, xtc_threshold;
    const uint8_t* breaks;       /* [num_tokens] 1: what is repeated ends before this token of the history; null: all 0 */
    int64_t dry_allowed_length, dry_penalty_last_n;  /* the second in tokens; 0: none, -1: all */
    double dry_multiplier, dry_base;
    double mirostat_mu;          /* bits of surprise beyond which tokens are cut */
} sampling_row;

/* Choose the next token of each sequence; -1 where none is possible. On a GPU also -1 where a value lies outside its
 * range, and the vocabulary may have 2^18 tokens. */
PARLOR_API int sample(
    const float* logits,             /* [num_sequences, vocab_size], rows logits_stride apart */
    int64_t logits_stride,
    const sampling_row* const* rows, /* [num_sequences] */
    int32_t* chosen,                 /* [num_sequences] */
    float* probabilities,            /* [num_sequences, vocab_size] the distribution chosen from, or null */
    double* surprises,               /* [num_sequences] -log2 of the chosen token's probability in it, or null */
    int64_t num_sequences, int64_t vocab_size, void* stream);

/* ---- linear: y = x @ W^T -------------------------------------------------------------------------- */

/* How a weight is kept. Quantized: weight[n][j] = (code[n][j] - zero[n][g]) * scale[n][g], g = j / group_size. */
enum { PARLOR_LINEAR_Q4 = 0, PARLOR_LINEAR_Q8 = 1, PARLOR_LINEAR_F16 = 2, PARLOR_LINEAR_BF16 = 3, PARLOR_LINEAR_F32 = 4,
/* In groups, of 2 to 6 bits, and 4-bit codes into a table of 16 values, of 8 bits (_T4) or 15 (_W4) (on the CPU only):
 * weight = (value - zero) * scale * step - minimum * min_step, value = table[code] or code; times the output's factor. */
       PARLOR_LINEAR_G2 = 5, PARLOR_LINEAR_G3 = 6, PARLOR_LINEAR_G4 = 7, PARLOR_LINEAR_G5 = 8, PARLOR_LINEAR_G6 = 9,
       PARLOR_LINEAR_T4 = 10, PARLOR_LINEAR_W4 = 11,
/* Dense floats of 8 bits (e4m3; on the CPU only), times the output's factor and, where there are several groups, a scale for
 * each group of columns of 16 outputs that are packed together. */
       PARLOR_LINEAR_F8 = 12 };

/* How scales of groups are kept. _STEPS: int8, minimums uint8, and every 256 columns have a float16 step and min_step.
 * _E8M0: bytes b for 2^(b - 127), 0 for b = 0; _E4M3: 8-bit floats. Where scales are these, and of _W4, outputs have factors. */
enum { PARLOR_SCALE_F16 = 0, PARLOR_SCALE_STEPS = 1, PARLOR_SCALE_E8M0 = 2, PARLOR_SCALE_E4M3 = 3 };

/* How zero points are kept: one number for the whole weight (symmetric), a byte or a float16 for each group. _MIN: there
 * are minimums instead (of PARLOR_LINEAR_G*). */
enum { PARLOR_ZERO_ONE = 0, PARLOR_ZERO_U8 = 1, PARLOR_ZERO_F16 = 2, PARLOR_ZERO_MIN = 3 };

/* A packed weight. The caller fills in the first part; linear_plan() and linear_pack_*() the second.
 * The packed layout is described in cpu/linear/linear.h; one copy serves every instruction set. */
struct linear_weight {
    int64_t n, k;              /* outputs, inputs */
    int64_t group_size;        /* columns that share a scale, 1..k; 0 for dense kinds but PARLOR_LINEAR_F8 */
    int32_t kind;              /* PARLOR_LINEAR_* */
    int32_t zero_kind;         /* PARLOR_ZERO_* */
    int32_t zero;              /* the zero point of PARLOR_ZERO_ONE, 0..255; of PARLOR_LINEAR_W4 at most 16,384 */
    int32_t exact;             /* 1: activations stay float32; 0: they are rounded to 12 bits in spans */
    int32_t scale_kind;        /* PARLOR_SCALE_* */
    uint16_t table[16];        /* the values + zero: at most 255 of PARLOR_LINEAR_T4, 32,767 of _W4 */
    const float* bias;         /* [n] or null */
    const int32_t* perm;       /* [k] or null: column j of the codes multiplies x[perm[j]] */

    int64_t padded_k;          /* columns as stored; every group is padded to a multiple of 32 */
    int64_t num_groups;
    int64_t num_blocks;        /* runs of columns within a group */
    int64_t num_spans;         /* runs of blocks whose activations share a scale */
    int64_t nbytes;            /* size of the packed buffer */
    const void* codes;         /* into the packed buffer, as are the following */
    const uint16_t* scales;
    const void* zeros;
    const void* blocks;
    const void* spans;
    const uint16_t* steps;     /* float16, of PARLOR_SCALE_STEPS */
    const uint16_t* min_steps;
    const float* factors;      /* or null */
    const float* block_scales; /* of PARLOR_LINEAR_F8, or null */
};

/* Check the first part of *weight and set its sizes, nbytes among them. Dense kinds have no groups. */
PARLOR_API int linear_plan(struct linear_weight* weight);

/* Pack into `buffer` (weight->nbytes, 64-byte aligned), which the caller keeps as long as the weight. */
PARLOR_API int linear_pack_quantized(
    struct linear_weight* weight,  /* as linear_plan() left it */
    const uint8_t* codes,          /* [n, k] one code a byte, columns sorted by group */
    const uint16_t* scales,        /* float16 [n, groups] */
    const void* zeros,             /* uint8 or float16 [n, groups] by zero_kind; unused for PARLOR_ZERO_ONE */
    void* buffer, void* stream);
/* Some rows of a weight of PARLOR_LINEAR_G*, _T4 or _W4, or of _Q4 or _Q8 with one zero point; the weight is there once all have
 * been packed. On the CPU only. */
PARLOR_API int linear_pack_groups(
    struct linear_weight* weight,  /* as linear_plan() left it */
    int64_t first_row,             /* a multiple of 16 */
    int64_t num_rows,              /* m: another one, but for the last rows */
    const uint8_t* codes,          /* [m, k] one code a byte */
    const void* scales,            /* [m, groups], by scale_kind float16 or bytes */
    const void* mins,              /* float16 or uint8 [m, groups], or null */
    const uint16_t* steps,         /* float16 [m, k / 256], or null */
    const uint16_t* min_steps,     /* the same */
    const float* factors,          /* [m], or null */
    void* buffer, void* stream);
/* Round to codes around 2^(bits - 1) with the scale that loses least, see model/kernels/rounding.py. On the CPU only. */
PARLOR_API int linear_round(
    const float* values,           /* [num_groups, 32] */
    int64_t num_groups, int bits,  /* 4 or 8 */
    uint8_t* codes,                /* [num_groups, 32] */
    float* scales,                 /* [num_groups], each a float16 number */
    void* stream);
PARLOR_API int linear_pack_dense(
    struct linear_weight* weight,
    const void* values,            /* [n, k] float16, bfloat16 or float32 by kind */
    void* buffer, void* stream);
PARLOR_API int linear_pack_float8(
    struct linear_weight* weight,  /* of PARLOR_LINEAR_F8; its group_size is k, or a multiple of 32 */
    const uint8_t* values,         /* [n, k] e4m3, none of them NaN */
    const float* factors,          /* [n] */
    const float* block_scales,     /* [ceil(n / 16), groups], unused for one group */
    void* buffer, void* stream);

/* out[t] = weight[token_ids[t]] * scale, of PARLOR_LINEAR_G*, _T4, _W4 or _F8; or of _Q4 or _Q8 without perm, with one zero point and
 * groups of multiples of 32 columns. On the CPU only. */
PARLOR_API int embed_packed(
    const struct linear_weight* weight,
    const int32_t* token_ids,      /* [num_tokens] */
    float* out,                    /* [num_tokens, k] */
    float scale, int64_t num_tokens, void* stream);

/* What becomes of y = x @ weight^T + bias, [m, n]; silu(a) = a / (1 + exp(-a)). */
enum {
    PARLOR_EPILOGUE_STORE = 0,    /* out = y */
    PARLOR_EPILOGUE_ADD = 1,      /* out += y */
    PARLOR_EPILOGUE_SILU_MUL = 2, /* out [m, n / 2] = silu(y[:, :n / 2]) * y[:, n / 2:]; n is even */
    PARLOR_EPILOGUE_GATE = 3      /* out = silu(out) * y: where gate and up are weights of their own */
};

/* y = x @ weight^T + bias and an epilogue. A row's result does not depend on the other rows. */
PARLOR_API int linear(
    const float* x,                /* [m, k], rows x_stride apart */
    int64_t x_stride,
    int64_t m,
    const float* norm_weight,      /* [k] or null: x / sqrt(mean(x^2) + eps) * norm_weight, row by row, takes x's place */
    float eps,
    const struct linear_weight* weight,
    float* out,                    /* [m, n], with SILU_MUL [m, n / 2], rows out_stride apart; must not overlap x */
    int64_t out_stride,
    int epilogue,                  /* PARLOR_EPILOGUE_* */
    void* stream);

/* The same for rows of prompts, on the CPU alone: with AMX both factors of a product may be rounded to bfloat16 (0.2% of a
 * result); of the first `precise` outputs they keep 12 bits or more. A row's result still depends on no other row, but need
 * not be what linear() gives. Elsewhere it is linear(). */
PARLOR_API int prompt_linear(const float* x, int64_t x_stride, int64_t m, const float* norm_weight, float eps,
                             const struct linear_weight* weight, float* out, int64_t out_stride, int epilogue,
                             int64_t precise, void* stream);

/* An MLP for rows of prompts, on the CPU alone: prompt_linear() by gate_up with SILU_MUL, then by down. With AMX what lies
 * between them is rounded to bfloat16 at once instead of written and read again, with the same result. */
PARLOR_API int prompt_mlp(const float* x, int64_t x_stride, int64_t m, const float* norm_weight, float eps,
                          const struct linear_weight* gate_up,
                          float* inner,          /* [m, k of down], rows inner_stride apart: undefined afterwards */
                          int64_t inner_stride, const struct linear_weight* down, float* out, int64_t out_stride,
                          int epilogue,          /* of down */
                          void* stream);

/* ---- low-rank products beside weights (LoRA) --------------------------------------------------------- */

enum { PARLOR_LORA_SEGMENTS = 4, PARLOR_LORA_RANK = 1024 };

/* What one adapter adds to the outputs of one weight, in up to four segments: where q, k and v lie together each has its
 * own. Lies where the library computes, and what it points to as well. */
typedef struct {
    const void* down;              /* [rank, k] of dtype */
    const void* up;                /* of each segment [its rank, its count] of dtype, from up_start on */
    int64_t dtype;                 /* PARLOR_F32, _F16 or _BF16 */
    int64_t rank;                  /* at most PARLOR_LORA_RANK; 0: nothing is added, and the rest is not looked at */
    int64_t num_segments;
    struct {
        int64_t first, count;      /* outputs */
        int64_t first_rank, rank;  /* rows of down */
        int64_t up_start;
        float scale, padding;
    } segments[PARLOR_LORA_SEGMENTS];
} lora_adapter;

/* out[:, segment] += scale * (x @ down^T) @ up, by the adapter of each row. A row's result does not depend on the other
 * rows, and all sums are float32. On a GPU a row whose adapter is not there becomes NaN. */
PARLOR_API int lora(
    const float* x,                /* [m, k], rows x_stride apart */
    int64_t x_stride,
    const float* norm_weight,      /* [k] or null: as for linear() */
    float eps,
    const int32_t* row_adapters,   /* [m] below num_adapters; negative: nothing is added */
    const lora_adapter* adapters,  /* [num_adapters] */
    int64_t num_adapters, int64_t n, int64_t k,
    float* out,                    /* [m, n], rows out_stride apart; must not overlap x */
    int64_t out_stride, int64_t m, void* stream);

/* ---- mixtures of experts --------------------------------------------------------------------------- */

/* Values of the router's scores: softmax over all experts, the scores themselves (of the chosen ones the softmax is taken),
 * 1 / (1 + exp(-score)), or the scores themselves, of which each chosen one has its share of a softmax of its own: over
 * itself, s, and what is not chosen before it and has a score t of (s - t) / max(|t|, s) <= margin. */
enum {
    PARLOR_ROUTE_SOFTMAX = 0, PARLOR_ROUTE_SOFTMAX_OF_CHOSEN = 1, PARLOR_ROUTE_SIGMOID = 2, PARLOR_ROUTE_SOFTMAX_OF_NEAR = 3
};

/* How scores become a choice. Lies on the host; what it points to where the library computes. */
typedef struct {
    int64_t num_experts;           /* at most 4,096 */
    int64_t top_k;                 /* at most 64 */
    int64_t num_groups;            /* divides num_experts, at most 1,024; 1: no groups */
    int64_t top_groups;            /* experts are chosen within these */
    int64_t best_of_group;         /* 1 or 2: the sum of so many values is what a group counts */
    int32_t scoring;               /* PARLOR_ROUTE_* */
    int32_t is_renormalized;       /* 1: shares are divided by their sum + share_eps */
    float share_eps;
    float scale;                   /* of shares */
    float margin;                  /* of PARLOR_ROUTE_SOFTMAX_OF_NEAR */
    const float* correction;       /* [num_experts] added to values for the choice alone, or null */
    const float* expert_scale;     /* [num_experts] of an expert's shares, or null */
} routing_rules;

/* The top_k experts of each row, the best first, of equal ones the lower index, and their shares. */
PARLOR_API int route(
    const float* scores,           /* [num_rows, num_experts], rows scores_stride apart */
    int64_t scores_stride,
    const routing_rules* rules,
    int32_t* chosen,               /* [num_rows, top_k] */
    float* shares,                 /* [num_rows, top_k] */
    int64_t num_rows, void* stream);

/* The experts of a layer, whose weights may be of different kinds. Lies on the host, its arrays too. */
typedef struct {
    int64_t num_experts, hidden_size, intermediate_size;
    int32_t activation;            /* PARLOR_ACTIVATION_* */
    int32_t is_gated;
    int32_t scales_input;          /* 1: shares multiply what an expert reads, 0: what it gives */
    const struct linear_weight* const* gate_up;  /* [num_experts] hidden_size -> intermediate_size, or gate and up together */
    const struct linear_weight* const* up;       /* [num_experts] where up is a weight of its own; null where not */
    const struct linear_weight* const* down;     /* [num_experts] intermediate_size -> hidden_size */
    const void* table;             /* on a GPU: what expert_table() wrote, there; else null */
} expert_weights;

/* out = sum over a row's chosen experts, in their order, of share * down(activation(gate_up(x))). A row's result depends
 * on no other row. */
PARLOR_API int experts(
    const float* x,                /* [m, hidden_size], rows x_stride apart */
    int64_t x_stride,
    int64_t m,
    const int32_t* chosen,         /* [m, top_k], within 0 .. num_experts - 1 */
    const float* shares,           /* [m, top_k] */
    int64_t top_k,                 /* 1 .. 64 */
    const expert_weights* weights,
    const float* gate,             /* [m]: out = out / (1 + exp(-gate)) + the sum; or null */
    int add,                       /* 1: out += the sum; with a gate always */
    float* out,                    /* [m, hidden_size], rows out_stride apart; may be x */
    int64_t out_stride, void* stream);

/* The same for rows of prompts, on the CPU alone: see prompt_linear(). */
PARLOR_API int prompt_experts(const float* x, int64_t x_stride, int64_t m, const int32_t* chosen, const float* shares,
                              int64_t top_k, const expert_weights* weights, const float* gate, int add, float* out,
                              int64_t out_stride, void* stream);

/* The machine's limits, for tools/benchmark: read `bytes` of memory with all threads; make products in registers
 * (int8; bfloat16 with AMX; int16 with AVX2; float32 in plain code), `rounds` of them among all threads, and say how many operations that
 * was. */
PARLOR_API int measure_read(const void* memory, int64_t bytes, void* stream);
PARLOR_API int measure_products(int64_t rounds, int64_t* operations, void* stream);

/* Ask for 2 MiB pages behind memory that has not been touched yet. 0 also where the system has none. */
PARLOR_API int advise_huge_pages(void* memory, int64_t bytes);

/* ---- end of linear ---------------------------------------------------------------------------------- */

#ifdef __cplusplus
}
#endif
#endif
