"""The checks of the AI SDK, for tools.check_clients; a script for Node."""

SCRIPT = """
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";

const baseURL = `${process.argv[2]}/v1`;
const options = { name: "parlor", baseURL, apiKey: "none", supportsStructuredOutputs: true };
const model = createOpenAICompatible(options)("any");
const schema = jsonSchema({
  type: "object", required: ["it"], additionalProperties: false,
  properties: { it: { type: "string", enum: ["left", "right"] } },
});
const prompt = "Say hello.";
const isChoice = (value) => ["left", "right"].includes(value?.it);
const checks = {
  generateText: async () => (await generateText({ model, prompt, maxOutputTokens: 20 })).text,
  streamText: async () => {
    let text = "";
    for await (const piece of streamText({ model, prompt, maxOutputTokens: 20 }).textStream) text += piece;
    return text;
  },
  tools: async () => {
    const choose = tool({ description: "Chooses.", inputSchema: schema });
    const { toolCalls } = await generateText({
      model, prompt, maxOutputTokens: 99, toolChoice: "required", tools: { choose },
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
const found = {};
for (const [name, check] of Object.entries(checks)) {
  try {
    found[name] = (await check()) ? "ok" : "nothing came";
  } catch (error) {
    found[name] = String(error).slice(0, 300);
  }
}
console.log(JSON.stringify({ "@ai-sdk/openai-compatible": found }));
"""
