/** The weekly timetable: which limit is in force at which hour. */
import type { Rule } from './types'

export const DAYS = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun']

/** "Mon-Fri,Sun" -> indices of days. */
export function days(text: string): number[] {
  const found = new Set<number>()
  for (const part of text.split(',')) {
    const [first, last] = part.trim().split('-').map((name) => DAYS.indexOf(name.trim()))
    if (first < 0 || last === -1) continue
    for (let day = first; ; day = (day + 1) % 7) {
      found.add(day)
      if (day === (last ?? first)) break
    }
  }
  return [...found].sort()
}

export function daysText(indices: number[]): string {
  return [...indices].sort().map((day) => DAYS[day]).join(',')
}

export function minutes(time: string): number {
  const [hours, rest] = time.split(':').map(Number)
  return hours * 60 + rest
}

/** The rule in force, the first one that fits; null where none is. */
export function ruleAt(rules: Rule[], day: number, minute: number): Rule | null {
  return (
    rules.find((rule) => {
      const [from, to] = [minutes(rule.From), minutes(rule.To)]
      const on = days(rule.Days)
      if (from < to) return on.includes(day) && from <= minute && minute < to
      return (on.includes(day) && minute >= from) || (on.includes((day + 6) % 7) && minute < to)
    }) ?? null
  )
}
