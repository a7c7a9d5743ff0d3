"""The checks of the libraries for JavaScript, for tools.check_clients; a script for Node."""

SCRIPT = """
import { existsSync } from "node:fs";

const root = process.argv[2];
const baseURL = `${root}/v1`;
const apiKey = "no-key-is-needed-here";
const parameters = {
  type: "object", required: ["it"], additionalProperties: false,
  properties: { it: { type: "string", enum: ["left", "right"] } },
};
const prompt = "Say hello.";
const messages = [{ role: "user", content: prompt }];
const isChoice = (value) => ["left", "right"].includes(value?.it);
const joined = async (stream, text) => {
  let all = "";
  for await (const piece of stream) all += text(piece) ?? "";
  return all;
};

/** What the AI SDK does with a model of one of its providers. */
async function aiSdk(model, providerOptions) {
  const { generateObject, generateText, jsonSchema, streamText, tool } = await import("ai");
  const schema = jsonSchema(parameters);
  return {
    generateText: async () => (await generateText({ model, prompt, maxOutputTokens: 20 })).text,
    streamText: () => joined(streamText({ model, prompt, maxOutputTokens: 20 }).textStream, (text) => text),
    tools: async () => {
      const choose = tool({ description: "Chooses.", inputSchema: schema });
      const { toolCalls } = await generateText({
        model, prompt, providerOptions, maxOutputTokens: 99, toolChoice: "required", tools: { choose },
      });
      return toolCalls.length && toolCalls.every((call) => isChoice(call.input));
    },
    generateObject: async () => isChoice((await generateObject({ model, prompt, schema })).object),
    errors: async () => {
      try {
        await generateText({ model, prompt: "word ".repeat(100000), maxRetries: 0 });
      } catch (error) {
        return /context holds/.test(error.message);
      }
      return false;
    },
  };
}

const libraries = {
  "@ai-sdk/openai-compatible": async ({ createOpenAICompatible }) => aiSdk(createOpenAICompatible(
    { name: "parlor", baseURL, apiKey, supportsStructuredOutputs: true })("any")),
  "@ai-sdk/openai": async ({ createOpenAI }) => aiSdk(
    createOpenAI({ baseURL, apiKey }).responses("any"), { openai: { parallelToolCalls: false } }),
  "@ai-sdk/anthropic": async ({ createAnthropic }) => aiSdk(
    createAnthropic({ baseURL, apiKey })("any"), { anthropic: { disableParallelToolUse: true } }),
  openai: async ({ default: OpenAI }) => {
    const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
    const chat = (options) => client.chat.completions.create({ model: "any", messages, max_tokens: 20,
                                                               ...options });
    return {
      chat: async () => (await chat({})).choices[0].message.content,
      stream: async () => joined(await chat({ stream: true }), (chunk) => chunk.choices[0]?.delta.content),
      tools: async () => {
        const tools = [{ type: "function", function: { name: "choose", parameters } }];
        const reply = await chat({ tools, tool_choice: "required", parallel_tool_calls: false,
                                   max_tokens: 99 });
        return isChoice(JSON.parse(reply.choices[0].message.tool_calls[0].function.arguments));
      },
      responses: async () => joined(
        await client.responses.create({ model: "any", input: prompt, max_output_tokens: 20, stream: true }),
        (event) => event.type === "response.output_text.delta" ? event.delta : ""),
      errors: async () => chat({ messages: [] }).then(() => false, (error) => error.status === 400),
    };
  },
  "@anthropic-ai/sdk": async ({ default: Anthropic }) => {
    const client = new Anthropic({ baseURL: root, apiKey, maxRetries: 0 });
    const asked = { model: "any", messages, max_tokens: 20 };
    return {
      messages: async () => (await client.messages.create(asked)).content[0].text,
      stream: async () => (await client.messages.stream(asked).finalMessage()).content[0].text,
    };
  },
  ollama: async ({ Ollama }) => {
    const client = new Ollama({ host: root });
    const asked = { model: "any", messages, options: { num_predict: 20 } };
    return {
      chat: async () => (await client.chat(asked)).message.content,
      stream: async () => joined(await client.chat({ ...asked, stream: true }),
                                 (part) => part.message.content),
      "list and show": async () => (await client.show({ model: (await client.list()).models[0].name }))
        .capabilities.includes("tools"),
    };
  },
};

const found = {};
for (const [library, checksOf] of Object.entries(libraries)) {
  if (!existsSync(`node_modules/${library}`)) continue;
  found[library] = {};
  for (const [name, check] of Object.entries(await checksOf(await import(library)))) {
    try {
      found[library][name] = (await check()) ? "ok" : "nothing came";
    } catch (error) {
      found[library][name] = String(error).slice(0, 300);
    }
  }
}
console.log(JSON.stringify(found));
"""
