import { z } from 'zod'
import { SCOPE_TOKEN } from '../jwt/scopes.ts'
import { check } from './validate.ts'

/** Rejects control characters and lone surrogates, which headers and text columns can't hold. */
export const noControls = (text: string) => !/\p{Cc}/u.test(text) && text.isWellFormed()

const scope = z
  .string()
  .max(1024, 'scope: at most 1024 characters')
  .refine(
    text => text.split(' ').every(one => SCOPE_TOKEN.test(one)),
    'scope: scope tokens separated by single spaces, without quotes or backslashes',
  )
  // A scope is a set (RFC 6749 3.3), so duplicates are removed.
  .transform(text => [...new Set(text.split(' '))].join(' '))

/** The scopes that a request asks for. Throws `invalid_scope` where they are malformed (RFC 6749 5.2). */
export const parseScope = (text: string | undefined): string | undefined =>
  check(scope.optional(), text, 'invalid_scope')

export const subject = z
  .string()
  .min(1)
  .max(255)
  .refine(noControls, 'up to 255 characters without control characters')

const oneAudience = z.string().regex(/^[\x21-\x7e]{1,255}$/, 'visible ASCII, like a URL')
export const audience = z.union(
  [
    oneAudience,
    z
      .array(oneAudience)
      .min(1)
      .max(10)
      .refine(all => new Set(all).size === all.length),
  ],
  'a string of visible ASCII, or 1 to 10 different ones',
)

/** The display name of a customer or a key. */
export const name = z.string().trim().min(1).max(100).refine(noControls, 'without control characters')
