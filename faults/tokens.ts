/** Reads fields of tokens without verifying them, and picks random items. */

const part = (token: string, index: number) =>
  JSON.parse(Buffer.from(token.split('.')[index]!, 'base64url').toString())

export const claimsOf = (token: string) => part(token, 1)

/** The version of the secret that signed it. */
export const versionOf = (token: string) => Number(/\.[ar](\d+)\./.exec(part(token, 0).kid)![1])

export const any = <Item>(items: Item[]) => items[Math.floor(Math.random() * items.length)]
export const chance = (share: number) => Math.random() < share
