import { z } from 'zod'
import { SCOPE_TOKEN } from '../jwt/scopes.ts'
import { check } from './validate.ts'

/** Rejects control characters and lone surrogates, which headers and text columns can't hold. */
export const noControls = (text: string) => !/\p{Cc}/u.test(text) && text.isWellFormed()

/**
 * Removes repeats from a list that represents a set, like a scope (RFC 6749 3.3), so that no answer repeats a member.
 */
export const distinct = (list: string[]) => [...new Set(list)]

const scope = z
  .string()
  .max(1024, 'scope: at most 1024 characters')
  .refine(
    text => text.split(' ').every(one => SCOPE_TOKEN.test(one)),
    'scope: scope tokens separated by single spaces, without quotes or backslashes',
  )
  .transform(text => distinct(text.split(' ')).join(' '))
  .optional()

/** The requested scopes. Throws `invalid_scope` if they are malformed (RFC 6749 5.2). */
export const parseScope = (text: string | undefined): string | undefined =>
  check(scope, text, 'invalid_scope')

export const subject = z
  .string()
  .min(1)
  .max(255)
  .refine(noControls, 'up to 255 characters without control characters')

/** A list whose length is checked before its elements: zod would create an issue for every wrong element. */
export const listOf = <Element extends z.ZodType>(
  element: Element,
  { min = 0, max }: { min?: number; max: number },
) => z.array(z.unknown()).min(min).max(max).pipe(z.array(element))

/** Refuses `.` and `..`: in a URL that a backend builds from X-Auth-Subject, they would name another resource. */
export const issuedSubject = subject.refine(
  text => text !== '.' && text !== '..',
  'must not be . or .., which change the path of a URL',
)

const oneAudience = z.string().regex(/^[\x21-\x7e]{1,255}$/, 'visible ASCII, like a URL')
export const audience = z.union(
  [oneAudience, listOf(oneAudience, { min: 1, max: 10 }).transform(distinct)],
  'a string of visible ASCII, or 1 to 10 of them',
)

/** A duration in seconds, from 1. `inWords` is `most` in another unit. */
export const wholeSeconds = (most: number, inWords: string) => {
  const message = `whole seconds, from 1 to ${most} (${inWords})`
  return z.int(message).min(1, message).max(most, message)
}

/** The display name of a customer or a key. */
export const name = z
  .string()
  .trim()
  .min(1)
  .max(100)
  .refine(noControls, 'must not contain control characters')
