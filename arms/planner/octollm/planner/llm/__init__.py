"""Plans made by language models: providers, prompt, wire schema, repair, budget and cost."""
