import { z } from 'zod'
import { ApiError, type ErrorCode } from '../lib/errors.ts'

/** Throws an error that names the member and what it should be, never what it was. */
export function check<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  code: ErrorCode = 'invalid_request',
): z.infer<Schema> {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  const place = issue.path.filter(part => typeof part !== 'symbol').join('.')
  throw new ApiError(
    code,
    printable(place ? `${place}: ${messageOf(issue, schema)}` : messageOf(issue, schema)),
  )
}

/** Uses our message if the schema has one. zod's own messages describe the input, and use its own terms. */
function messageOf(issue: z.core.$ZodIssue, schema: z.ZodType): string {
  if (issue.code === 'unrecognized_keys')
    return schema instanceof z.ZodObject
      ? `unknown field; allowed: ${Object.keys(schema.shape).join(', ')}`
      : 'it has an unknown field; remove it'
  if (!/^(Invalid input|Too small|Too big)/.test(issue.message)) return issue.message
  if (issue.message.endsWith('received undefined')) return 'is missing'
  if (issue.code === 'too_small') return issue.origin === 'string' ? 'is empty' : `at least ${issue.minimum}`
  if (issue.code === 'too_big')
    return `at most ${issue.maximum}${issue.origin === 'string' ? ' characters' : ''}`
  return issue.code === 'invalid_type' ? `must be ${KINDS[issue.expected] ?? issue.expected}` : issue.message
}

const KINDS: Record<string, string> = {
  string: 'a string',
  int: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a JSON object',
  record: 'a JSON object',
}

/** RFC 6749 5.2: visible ASCII and space, without quote and backslash. */
const printable = (text: string) =>
  text
    .replaceAll('"', "'")
    .replace(/[^\x20-\x5b\x5d-\x7e]/g, '?')
    .slice(0, 200)
