// @ts-check
/**
 * The shapes that come over HTTP, for the type checker only; nothing here runs.
 *
 * @typedef {{id: string, name: string, color: string, persona: string, greeting: string,
 *   alternate_greetings?: string[], example_dialogue?: string, nickname?: string,
 *   post_history_instructions?: string, picture_version?: string,
 *   sampling: Record<string, any>, revision: number, adapter?: string,
 *   engine?: {id: string, model: string} | null}} Bot
 *
 * `far`: of a long session, its text is yet to come (session/far-texts.js).
 * @typedef {{id: string, parent: string | null, author: string, name: string, text: string,
 *   thinking?: string,
 *   created: number, model?: string, sampling?: Record<string, any>, seed?: number, prompt_tokens?: number,
 *   cached_tokens?: number, new_tokens?: number, seconds_to_first_token?: number, prompt_seconds?: number,
 *   decode_seconds?: number, tokens_per_second?: number, drafted_tokens?: number, accepted_tokens?: number,
 *   thinking_tokens?: number, thinking_seconds?: number,
 *   finish_reason?: string, error?: string, shortened?: string, pinned?: boolean, label?: string,
 *   for?: string[] | null, record?: {begun?: number}, far?: boolean}} Message
 *
 * @typedef {{id: string | null, revision: number, title: string, title_is_auto?: boolean, created: number,
 *   updated: number,
 *   bots: Entry[], user_name: string, system_prompt: string, turn_order: string,
 *   user_persona?: string, note?: {text: string, depth: number} | null, summaries?: Passage[],
 *   comparisons?: Comparison[],
 *   lore?: {keys: string[], text: string}[],
 *   sampling: Record<string, any>, preset: string, leaf: string | null, messages: Message[],
 *   next?: string[], replies?: Running[], greetings?: Record<string, number>, seed?: string,
 *   history?: {undo: Change | null, redo: Change | null}}} Session
 *
 * A change of a session, which can be undone. `undone`: it was the undoing of that.
 * @typedef {{id: string, kind: string, name?: string, bot?: string, fields?: string[],
 *   parameters?: string[], undone?: boolean}} Change
 *
 * A bot of a session. `since`: the last message that was there before it came in; `notes`: its own.
 * @typedef {{id: string, muted: boolean, since?: string | null, notes?: string}} Entry
 *
 * Replies that were written side by side, and which of them was chosen.
 * @typedef {{id: string, created: number, question: string, blind: boolean, winner: string | null,
 *   columns: {message: string, bot: string, preset: string | null, seed: number | null,
 *   engine?: {id: string, model: string} | null}[]}} Comparison
 *
 * A summary of all up to a message, for some bots only or for all.
 * @typedef {{id: string, until: string, text: string, created: number, for?: string[]}} Passage
 *
 * A token of a reply; `text` is the characters that it completes, `bytes` its own in hex where they are none.
 * @typedef {{text: string, bytes?: string, logprob: number, entropy: number | null,
 *   others: OtherToken[]}} Token
 *
 * @typedef {{text: string, bytes?: string, id: string, logprob: number, choosable: boolean}} OtherToken
 *
 * A token as far as it is shown.
 * @typedef {{text: string, bytes?: string}} Piece
 *
 * What may come next, for trying samplers on it: tokens that stand one by one, by falling logit, and groups
 * of others, [logit, number]. `chosen` is the one that came, where it is asked for a place in a reply.
 * @typedef {{tokens: Candidate[], rest: [number, number][], num_tokens: number, reply_length: number,
 *   chosen?: Piece}} NextToken
 *
 * `back`: tokens since it last occurred; `count`: in the reply; `repeats`: what DRY may count, [b, n]: the n
 * tokens before the b-th from the end are those at the end.
 * @typedef {{text: string, bytes?: string, id: number, logit: number, back?: number, count?: number,
 *   repeats?: [number, number][], control?: boolean, ends?: boolean}} Candidate
 *
 * @typedef {{since: number, changed: [number, Message][], removed: string[]}} Delta
 *
 * `guide_tokens`: of what guidance leads away from, which is read once more.
 * @typedef {{first_message: string | null, left_out: number, prompt_tokens: number | null,
 *   guide_tokens: number | null, max_seq_len: number | null,
 *   about: boolean, problem?: string}} Context
 *
 * What a bot would be sent, as GET .../prompt answers.
 * @typedef {{bot: string, name: string, model: string, host: string, problem: string, parts: PromptPart[],
 *   prompt_tokens: number, max_seq_len: number | null, max_new_tokens: number, about: boolean,
 *   is_template: boolean, first_message: string | null, left_out: number, shortened: boolean,
 *   before: number, others: number,
 *   cached_tokens: number | null, read_from: {part: number, chars: number} | null,
 *   guide: {parts: PromptPart[], prompt_tokens: number} | null}} Prompt
 *
 * @typedef {{kind: string, text: string, tokens: number, message?: string | null, name?: string,
 *   pinned?: boolean}} PromptPart
 *
 * What came of a replay. `same` of a fact: null where it cannot be known.
 * @typedef {{identical: boolean, by: "tokens" | "text", tokens: number, cut: boolean, edited: boolean,
 *   seed: number, facts: {what: string, then: any, now: any, same: boolean | null}[],
 *   difference: {channel: "text" | "thinking", index: number, before: string, then: Side, now: Side} | null
 *   }} Replayed
 *
 * What stood, or stands, at the first place that differs: the token and what follows; its log-probability
 * as the model `was` and `is`, or a bound that it is `below`.
 * @typedef {{token: Piece | null, ended: boolean, rest: string, was?: number | null, is?: number | null,
 *   below?: number}} Side
 *
 * @typedef {{reply_id: string, message_id: string, bot: string | null}} Running
 *
 * @typedef {{id: string, title: string, updated: number, bots: string[], num_messages: number,
 *   revision: number,
 *   writing: {reply_id: string, bot: string} | null, snippet?: string, match?: string | null,
 *   pinned?: boolean, folder?: string,
 *   tags?: string[]}} Summary
 *
 * What lies in the trash, a session or a bot.
 * @typedef {{undo: string, kind: string, id: string, name: string, deleted: number, kept_until: number,
 *   num_messages?: number}} Deleted
 *
 * @typedef {{name: string,
 *   type: "float" | "int" | "strings" | "bias" | "tokens" | "names" | "choice" | "text",
 *   nullable: boolean, default: any,
 *   min?: number, max?: number, step?: number, group: string, label: string, help: string,
 *   max_items?: number, choices?: string[], first?: string[],
 *   max_length?: number, empty?: string}} Parameter
 *
 * @typedef {{id: string, name: string, sampling: Record<string, any>, builtin?: boolean}} Preset
 *
 * @typedef {{parameters: Parameter[], turn_orders: {id: string, label: string, help: string}[],
 *   presets: Preset[],
 *   limits: Record<string, any>, engines: Engine[], password: boolean,
 *   address_for_others: string | null}} Settings
 *
 * Another engine, without what it is shown in confidence.
 * @typedef {{id: string, name: string, url: string, host: string, has_key: boolean, headers: string[],
 *   is_fixed: boolean, is_read: boolean, num_models: number, problem: string}} Engine
 *
 * A reply that is being written, as far as this page has read it.
 * @typedef {{replyId: string, messageId: string, sessionId: string, bot: string, name: string,
 *   parent: string | null,
 *   base: string, text: string, think: string, thinkSeconds: number, thinkTokens: number, started: number,
 *   for: string[] | null, ready: boolean, stopping: boolean, held: boolean,
 *   progress: {done: number, total: number,
 *   cached: number} | null,
 *   stats: Record<string, any> | null}} Live
 *
 * @typedef {{model: Record<string, any> | null, engine: Record<string, any> | null, slot: Slot,
 *   version: string, changes: number}} Status
 *
 * What is loaded, or on its way.
 * @typedef {{phase: "empty" | "asleep" | "checking" | "waiting" | "loading" | "ready", id: string,
 *   name: string, coming_id: string, coming_name: string, what: string, share: number, problem: string,
 *   version: number, download: Download | null}} Slot
 *
 * @typedef {{source: string, file: string, done_bytes: number, total_bytes: number, problem: string,
 *   phase: "asking" | "fetching" | "cancelling" | "done" | "failed" | "cancelled",
 *   id: string, name: string}} Download
 *
 * @typedef {{id: string, name: string, place: string, where: string, size_bytes: number, is_read: boolean,
 *   problem: string, fits: boolean | null, advice: string, host: string,
 *   engine?: {id: string, model: string}, family?: string, quantization?: string,
 *   num_parameters?: number, max_positions?: number, memory_bytes?: number, max_seq_len?: number,
 *   cache_by_layers?: string}} Model
 *
 * A LoRA adapter that fits the model which is loaded; `id` is empty for one outside of the models folder.
 * @typedef {{id: string, name: string, where: string, size_bytes: number, is_loaded: boolean}} Adapter
 *
 * @typedef {{file: string, message: string}} FileProblem
 *
 * What is on its way to the server.
 * @typedef {{text: string, created: number, for?: string[]}} Outgoing
 *
 * @typedef {{status: Status | null, slot: Slot | null, settings: Settings | null, bots: Bot[],
 *   sessions: Summary[], problems: FileProblem[], query: string,
 *   words: string[], selected: Set<string> | null, session: Session | null, context: Context | null,
 *   viewLeaf: string | null, live: Map<string, Live>,
 *   loading: boolean, editing: string | null, outgoing: Outgoing | null, audience: string[] | null,
 *   away: boolean}} State
 */

export {};
