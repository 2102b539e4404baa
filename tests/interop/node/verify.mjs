// Verifies what it is asked on its standard input, a line `KEYSET TOKEN` at a time, and answers with a line: empty when
// the token was accepted, else why it was refused. Each keyset's verifier is a module beside this one.
import { createInterface } from 'node:readline'

const verifiers = new Map()

for await (const line of createInterface({ input: process.stdin })) {
  const [keyset, token] = line.split(' ')
  if (!verifiers.has(keyset)) verifiers.set(keyset, await import(`./${keyset}.mjs`))
  try {
    await verifiers.get(keyset).claimsOf(token)
    process.stdout.write('\n')
  } catch (error) {
    process.stdout.write(`${error.name}: ${error.message}`.replaceAll('\n', ' ') + '\n')
  }
}
