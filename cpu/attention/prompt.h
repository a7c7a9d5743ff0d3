// Attention of a prompt's tokens, where a set has a way of its own for them (prompt_amx.cpp).
#pragma once

#include "operations.h"

#if PARLOR_BUILT_AMX
// Whether attend_to_prompts() takes such a cache and heads; others are attended to as rows that decode do.
PARLOR_DECLARE_IN(amx, bool, takes_prompts, const parlor::AttentionArgs&)
PARLOR_DECLARE_IN(amx, int, attend_to_prompts, const parlor::AttentionArgs&)
#endif
