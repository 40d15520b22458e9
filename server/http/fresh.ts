import type { AppContext } from './env.ts'

/** Whether the client has the document with this ETag. It returns the tag unchanged (RFC 9110 13.1.2). */
export function isFresh(c: AppContext, tag: string): boolean {
  const tags = c.req
    .header('if-none-match')
    ?.split(',')
    .map(one => one.trim())
  return tags?.some(one => one === '*' || one === tag) ?? false
}
