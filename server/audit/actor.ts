/** Actors as the audit names them. */

export const isOperator = (actor: string): boolean => actor.startsWith('operator:')

export const isService = (actor: string): boolean => actor.startsWith('service:')
